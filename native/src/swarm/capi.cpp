// The C interface: checks what it is given, lets no exception out.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "peer.hpp"
#include "session.hpp"
#include "transfer.hpp"
#include "zest_swarm.h"

struct zest_session {
    explicit zest_session(zest_session_config const &config) : session(config) {}
    zest::Session session;
};

struct zest_transfer {
    std::shared_ptr<zest::Transfer> transfer;
};

struct zest_draft {
    zest::DraftPtr draft;
};

namespace {

using namespace zest;

Hash hash_at(std::uint8_t const *raw) {
    Hash out;
    std::memcpy(out.data(), raw, out.size());
    return out;
}

bool good_lengths(std::uint32_t chunks, std::uint32_t const *lengths) {
    return chunks <= wire::max_object_chunks && std::all_of(lengths, lengths + chunks, [](std::uint32_t length) {
               return length != 0 && length <= wire::max_chunk_bytes;
           });
}

bool take_terms(std::uint32_t terms, zest_term const *term, std::vector<XorbTerm> &out) {
    for (std::uint32_t i = 0; i < terms; ++i) {
        if (term[i].start >= term[i].end || term[i].end > wire::max_object_chunks) return false;
        out.push_back({hash_at(term[i].xorb), {term[i].start, term[i].end}});
    }
    return true;
}

// Nothing: they are not valid.
std::optional<std::vector<wire::Claim>> take_claims(std::uint32_t claims, zest_claim const *claim) {
    if (claims > wire::max_claims) return std::nullopt;
    std::vector<wire::Claim> out;
    out.reserve(claims);
    std::uint32_t after = 0;
    for (std::uint32_t i = 0; i < claims; ++i) {
        auto const &[start, end, state, progress] = claim[i];
        if (start < after || start >= end || end > wire::max_object_chunks || state < 1 || state > 2)
            return std::nullopt;
        after = end;
        out.push_back({{start, end}, static_cast<wire::ClaimState>(state), progress});
    }
    return out;
}

void push_outcome(Session &session, std::uint32_t type, std::uint32_t peer, std::uint64_t token,
                  std::uint32_t outcome) {
    zest_event event{};
    event.type = type;
    event.peer = peer;
    event.token = token;
    event.status = outcome;
    session.events().push(event);
}

// An exception here can only be a lack of memory; what was asked then ends by the caller's own deadline.
template <typename F>
void guarded(F &&f) noexcept {
    try {
        f();
    } catch (...) {
    }
}

template <typename T>
size_t copy_out(std::vector<T> const &from, T *out, size_t capacity) {
    for (size_t i = 0; i < from.size() && i < capacity; ++i) out[i] = from[i];
    return from.size();
}

}  // namespace

extern "C" {

zest_session *zest_session_open(const zest_session_config *config, char *error, size_t error_size) {
    try {
        return new zest_session(*config);
    } catch (std::exception const &e) {
        if (error_size) {
            std::strncpy(error, e.what(), error_size - 1);
            error[error_size - 1] = 0;
        }
    } catch (...) {
        if (error_size) *error = 0;
    }
    return nullptr;
}

void zest_session_close(zest_session *session) {
    guarded([&] { delete session; });
}

uint16_t zest_session_port(zest_session *session) { return session->session.port(); }

int zest_session_event_fd(zest_session *session) { return session->session.events().fd(); }

int zest_session_next(zest_session *session, zest_event *event, uint8_t *payload, size_t capacity) {
    return session->session.events().next(event, payload, capacity);
}

void zest_session_info_hash(zest_session *session, int kind, const uint8_t *hash, uint8_t *out) {
    auto const name = session->session.names().of(static_cast<Kind>(kind), hash_at(hash));
    std::memcpy(out, name.data(), name.size());
}

int zest_session_dial(zest_session *session, const char *host, uint16_t port, const uint8_t *info_hash,
                      uint64_t token) {
    try {
        std::optional<InfoHash> swarm;
        if (info_hash) {
            swarm.emplace();
            std::memcpy(swarm->data(), info_hash, swarm->size());
        }
        return session->session.dial(host, port, swarm, token) ? 0 : -1;
    } catch (...) {
        return -1;
    }
}

void zest_session_join(zest_session *session, int kind, const uint8_t *hash, int announce) {
    guarded([&] { session->session.join(static_cast<Kind>(kind), hash_at(hash), announce != 0); });
}

void zest_session_leave(zest_session *session, int kind, const uint8_t *hash) {
    guarded([&] { session->session.leave(static_cast<Kind>(kind), hash_at(hash)); });
}

void zest_session_add_tracker(zest_session *session, const char *url) {
    guarded([&] { session->session.add_tracker(url); });
}

void zest_session_add_dht_node(zest_session *session, const char *host, uint16_t port) {
    guarded([&] { session->session.add_dht_node(host, port); });
}

int zest_session_tell_claims(zest_session *session, const uint8_t *file_hash, int downloading, uint32_t claims,
                             const zest_claim *claim) {
    try {
        auto list = take_claims(claims, claim);
        if (!list || (!downloading && claims != 0)) return -1;
        session->session.tell_claims(hash_at(file_hash), downloading != 0, std::move(*list));
        return 0;
    } catch (...) {
        return -1;
    }
}

size_t zest_session_trackers(zest_session *session, zest_tracker_info *out, size_t capacity) {
    try {
        return copy_out(session->session.trackers(), out, capacity);
    } catch (...) {
        return 0;
    }
}

void zest_session_ban(zest_session *session, uint32_t peer, const char *reason) {
    guarded([&] { session->session.ban(peer, reason); });
}

void zest_session_ask_have(zest_session *session, uint64_t token, uint32_t peer, int kind, const uint8_t *hash,
                           int updates, uint32_t timeout_ms) {
    guarded([&] {
        auto &s = session->session;
        s.with_peer(
            peer,
            [&s, token, kind, hash = hash_at(hash), updates = updates != 0, timeout_ms](Peer &p) {
                p.requester.ask_have(token, static_cast<Kind>(kind), hash, updates, timeout_ms, s.now_ms());
            },
            [&s, token, peer] { push_outcome(s, ZEST_EVENT_HAVE, peer, token, ZEST_OUTCOME_GONE); });
    });
}

void zest_session_forget_have(zest_session *session, uint32_t peer, uint64_t token) {
    guarded([&] {
        session->session.with_peer(
            peer, [token](Peer &p) { p.requester.forget_have(token); }, [] {});
    });
}

void zest_session_ask_manifest(zest_session *session, uint64_t token, uint32_t peer, int kind, const uint8_t *hash,
                               uint32_t first, uint32_t count, uint32_t timeout_ms) {
    guarded([&] {
        auto &s = session->session;
        s.with_peer(
            peer,
            [&s, token, kind, hash = hash_at(hash), first, count, timeout_ms](Peer &p) {
                p.requester.ask_manifest(token, static_cast<Kind>(kind), hash, first, count, timeout_ms, s.now_ms());
            },
            [&s, token, peer] { push_outcome(s, ZEST_EVENT_MANIFEST, peer, token, ZEST_OUTCOME_GONE); });
    });
}

zest_transfer *zest_transfer_open(int fd, uint64_t offset_bytes, uint32_t chunks, const uint8_t *hashes,
                                  const uint32_t *lengths) {
    try {
        auto const list =
            good_lengths(chunks, lengths) ? std::make_shared<ChunkList>(hashes, lengths, chunks) : nullptr;
        if (!list || offset_bytes > INT64_MAX - list->offset(chunks)) {
            errno = EINVAL;
            return nullptr;
        }
        int const own = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (own < 0) return nullptr;
        return new zest_transfer{std::make_shared<Transfer>(own, offset_bytes, list)};
    } catch (...) {
        errno = ENOMEM;
        return nullptr;
    }
}

int zest_transfer_wrote(zest_transfer *transfer, uint32_t first, uint32_t count) {
    try {
        return count <= wire::max_object_chunks && first <= wire::max_object_chunks &&
                       transfer->transfer->wrote({first, first + count})
                   ? 0
                   : -1;
    } catch (...) {
        return -1;
    }
}

void zest_transfer_seal(zest_transfer *transfer) { transfer->transfer->seal(); }

void zest_transfer_close(zest_transfer *transfer) {
    if (!transfer) return;
    transfer->transfer->close();
    delete transfer;
}

void zest_session_ask_piece(zest_session *session, uint64_t token, uint32_t peer, zest_transfer *transfer, int kind,
                            const uint8_t *hash, uint32_t object_first, uint32_t file_first, uint32_t count,
                            uint32_t timeout_ms) {
    guarded([&] {
        auto &s = session->session;
        Requester::Piece piece{token,         transfer->transfer, static_cast<Kind>(kind),
                               hash_at(hash), object_first,       file_first,
                               count,         timeout_ms};
        s.with_peer(
            peer, [&s, piece](Peer &p) { p.requester.ask_piece(piece, s.now_ms()); },
            [&s, token, peer] { push_outcome(s, ZEST_EVENT_PIECE, peer, token, ZEST_OUTCOME_GONE); });
    });
}

void zest_session_cancel_piece(zest_session *session, uint32_t peer, uint64_t token) {
    guarded([&] {
        session->session.with_peer(
            peer, [token](Peer &p) { p.requester.cancel_piece(token); }, [] {});
    });
}

zest_draft *zest_draft_open(int fd, uint64_t offset_bytes, uint64_t size_bytes, const uint8_t *xorb, uint32_t start,
                            uint32_t end) {
    try {
        if (start >= end || end > wire::max_xorb_chunks || offset_bytes > INT64_MAX / 2 || size_bytes > INT64_MAX / 2) {
            errno = EINVAL;
            return nullptr;
        }
        int const own = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (own < 0) return nullptr;
        return new zest_draft{
            std::make_shared<Draft>(own, offset_bytes, size_bytes, hash_at(xorb), ChunkSpan{start, end})};
    } catch (...) {
        errno = ENOMEM;
        return nullptr;
    }
}

int zest_draft_add(zest_draft *draft, uint32_t count, const uint8_t *hashes, const uint32_t *lengths) {
    try {
        return draft->draft->add(hashes, lengths, count) ? 0 : -1;
    } catch (...) {
        return -1;
    }
}

void zest_draft_end(zest_draft *draft) { draft->draft->end(); }

uint32_t zest_draft_count(zest_draft *draft) { return draft->draft->count(); }

uint64_t zest_draft_bytes(zest_draft *draft) { return draft->draft->bytes(); }

uint32_t zest_draft_copy(zest_draft *draft, uint32_t count, uint8_t *hashes, uint32_t *lengths) {
    auto const come = std::min(count, draft->draft->count());
    draft->draft->copy({0, come}, hashes, lengths);
    return come;
}

void zest_draft_close(zest_draft *draft) {
    if (!draft) return;
    draft->draft->close();
    delete draft;
}

void zest_draft_release(zest_draft *draft) {
    if (!draft) return;
    draft->draft->end();
    delete draft;
}

void zest_session_share_draft(zest_session *session, zest_draft *draft) {
    guarded([&] { session->session.drafts().offer(draft->draft); });
}

void zest_session_unshare_draft(zest_session *session, zest_draft *draft) {
    guarded([&] { session->session.drafts().withdraw(*draft->draft); });
}

void zest_session_follow(zest_session *session, uint64_t token, uint32_t peer, zest_draft *draft, uint32_t timeout_ms) {
    guarded([&] {
        auto &s = session->session;
        s.with_peer(
            peer,
            [&s, token, timeout_ms, draft = draft->draft](Peer &p) {
                p.requester.follow(token, draft, timeout_ms, s.now_ms());
            },
            [&s, token, peer] { push_outcome(s, ZEST_EVENT_PIECE, peer, token, ZEST_OUTCOME_GONE); });
    });
}

int zest_session_share(zest_session *session, const char *path, uint64_t size, int64_t mtime_ns,
                       const uint8_t *file_hash, uint32_t chunks, const uint8_t *hashes, const uint32_t *lengths,
                       uint32_t terms, const zest_term *term) {
    try {
        auto file = std::make_shared<SharedFile>();
        file->path = path;
        file->size = size;
        file->mtime_ns = mtime_ns;
        file->hash = hash_at(file_hash);
        if (!good_lengths(chunks, lengths)) return -1;
        file->list = std::make_shared<ChunkList>(hashes, lengths, chunks, session->session.hash_file());
        if (file->list->offset(chunks) != size || !take_terms(terms, term, file->terms)) return -1;
        return session->session.store().add(std::move(file)) ? 0 : -1;
    } catch (...) {
        return -1;
    }
}

void zest_session_unshare(zest_session *session, const char *path, const uint8_t *file_hash) {
    guarded([&] { session->session.store().remove(path, hash_at(file_hash)); });
}

int zest_session_share_transfer(zest_session *session, zest_transfer *transfer, const uint8_t *file_hash,
                                uint32_t terms, const zest_term *term) {
    try {
        if (!transfer->transfer->readable()) return -1;
        auto file = std::make_shared<SharedFile>();
        file->transfer = transfer->transfer;
        file->list = transfer->transfer->list();
        if (file_hash) file->hash = hash_at(file_hash);
        if (!take_terms(terms, term, file->terms)) return -1;
        return session->session.store().add(std::move(file)) ? 0 : -1;
    } catch (...) {
        return -1;
    }
}

void zest_session_unshare_transfer(zest_session *session, zest_transfer *transfer) {
    guarded([&] { session->session.store().remove(*transfer->transfer); });
}

void zest_session_set_caps(zest_session *session, uint64_t max_up_bytes_s, uint64_t max_down_bytes_s) {
    guarded([&] { session->session.set_caps(max_up_bytes_s, max_down_bytes_s); });
}

void zest_session_set_uploads(zest_session *session, int on) {
    guarded([&] { session->session.set_uploads(on != 0); });
}

size_t zest_session_peers(zest_session *session, zest_peer_info *out, size_t capacity) {
    try {
        return copy_out(session->session.peers(), out, capacity);
    } catch (...) {
        return 0;
    }
}

size_t zest_session_bans(zest_session *session, zest_ban_info *out, size_t capacity) {
    try {
        return copy_out(session->session.bans(), out, capacity);
    } catch (...) {
        return 0;
    }
}

size_t zest_session_shares(zest_session *session, zest_share_info *out, size_t capacity) {
    try {
        return copy_out(session->session.shares(), out, capacity);
    } catch (...) {
        return 0;
    }
}

void zest_session_get_stats(zest_session *session, zest_session_stats *out) {
    *out = zest_session_stats{};
    guarded([&] { *out = session->session.stats(); });
}

}  // extern "C"

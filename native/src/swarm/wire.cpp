#include "wire.hpp"

#include <cstring>

namespace zest::wire {
namespace {

enum class Xet : std::uint8_t { request = 1, response = 2, not_found = 3, error = 4 };
enum class Zest : std::uint8_t {
    have_request = 1,
    have = 2,
    manifest_request = 3,
    manifest = 4,
    range_request = 5,
    range_data = 6,
    range_end = 7,
    cancel = 8,
    have_update = 9,
    peers = 10,
    claims = 11,
    follow_request = 12,
};

// Reads forward through a message whose length was checked by the caller.
class Reader {
public:
    explicit Reader(Bytes message) : at_(message.data) {}
    std::uint8_t u8() noexcept { return *at_++; }
    std::uint32_t u32() noexcept {
        auto const value = get_u32(at_);
        at_ += 4;
        return value;
    }
    std::uint16_t u16() noexcept {
        auto const value = static_cast<std::uint16_t>((at_[0] << 8) | at_[1]);
        at_ += 2;
        return value;
    }
    template <typename Array>
    Array raw() noexcept {
        Array value;
        std::memcpy(value.data(), at_, value.size());
        at_ += value.size();
        return value;
    }
    Hash hash() noexcept { return raw<Hash>(); }
    std::uint8_t const *rest() const noexcept { return at_; }

private:
    std::uint8_t const *at_;
};

class Writer {
public:
    Writer(std::size_t size, std::uint8_t type) : bytes_(size) {
        bytes_[0] = type;
        at_ = bytes_.data() + 1;
    }
    Writer &u8(std::uint8_t value) {
        *at_++ = value;
        return *this;
    }
    Writer &u32(std::uint32_t value) {
        at_ = put_u32(at_, value);
        return *this;
    }
    Writer &u16(std::uint16_t value) {
        at_[0] = static_cast<std::uint8_t>(value >> 8);
        at_[1] = static_cast<std::uint8_t>(value);
        at_ += 2;
        return *this;
    }
    template <typename Array>
    Writer &raw(Array const &value) {
        std::memcpy(at_, value.data(), value.size());
        at_ += value.size();
        return *this;
    }
    Writer &hash(Hash const &value) { return raw(value); }
    Writer &text(std::string_view value) {
        if (!value.empty()) std::memcpy(at_, value.data(), value.size());
        at_ += value.size();
        return *this;
    }
    std::vector<std::uint8_t> take() { return std::move(bytes_); }

private:
    std::vector<std::uint8_t> bytes_;
    std::uint8_t *at_;
};

std::optional<Kind> kind_of(std::uint8_t value) {
    if (value == 1 || value == 2) return static_cast<Kind>(value);
    return std::nullopt;
}

std::optional<Answer> answer_of(std::uint8_t value) {
    if (value <= 2) return static_cast<Answer>(value);
    return std::nullopt;
}

bool in_object(ChunkSpan chunks) { return chunks.first < chunks.end && chunks.end <= max_object_chunks; }

constexpr std::size_t have_request_bytes = 59;
constexpr std::size_t have_header_bytes = 46;
constexpr std::size_t have_update_header_bytes = 14;
constexpr std::size_t peers_header_bytes = 22;
constexpr std::size_t peer_address_bytes = 18;
constexpr std::size_t claims_header_bytes = 24;
constexpr std::size_t claim_bytes = 11;
constexpr std::size_t follow_request_bytes = 45;

// What HAVE and HAVE_UPDATE end with: the size of the object and ranges of it, as many as there is room for.
bool read_ranges(Reader &in, std::size_t room, std::uint32_t &chunks, std::vector<ChunkSpan> &ranges) {
    chunks = in.u32();
    auto const count = in.u32();
    if (count > max_have_ranges || chunks > max_object_chunks || room != std::size_t{8} * count) return false;
    ranges.reserve(count);
    std::uint32_t after = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        ChunkSpan span{in.u32(), 0};
        span.end = in.u32();
        if (!in_object(span) || span.first < after) return false;
        after = span.end;
        ranges.push_back(span);
    }
    return true;
}

void write_ranges(Writer &out, std::uint32_t chunks, std::vector<ChunkSpan> const &ranges) {
    out.u32(chunks).u32(static_cast<std::uint32_t>(ranges.size()));
    for (auto const &range : ranges) out.u32(range.first).u32(range.end);
}

std::optional<ZestMessage> parse_have_request(Bytes message) {
    if (message.size != have_request_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    HaveRequest out{};
    out.id = in.u32();
    auto const kind = kind_of(in.u8());
    out.swarm = in.raw<InfoHash>();
    auto const updates = in.u8();
    out.proof = in.hash();
    if (!kind || updates > 1) return std::nullopt;
    out.kind = *kind;
    out.updates = updates == 1;
    return out;
}

std::optional<ZestMessage> parse_have(Bytes message) {
    if (message.size < have_header_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    Have out{};
    out.id = in.u32();
    auto const answer = answer_of(in.u8());
    out.proof = in.hash();
    if (!answer || !read_ranges(in, message.size - have_header_bytes, out.chunks, out.ranges)) return std::nullopt;
    out.answer = *answer;
    return out;
}

std::optional<ZestMessage> parse_have_update(Bytes message) {
    if (message.size < have_update_header_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    HaveUpdate out{};
    out.id = in.u32();
    auto const answer = answer_of(in.u8());
    if (!answer || *answer == Answer::busy ||
        !read_ranges(in, message.size - have_update_header_bytes, out.chunks, out.ranges))
        return std::nullopt;
    out.answer = *answer;
    return out;
}

std::optional<ZestMessage> parse_peers(Bytes message) {
    if (message.size < peers_header_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    Peers out{in.raw<InfoHash>(), {}};
    auto const count = in.u8();
    if (count == 0 || count > max_peers || message.size != peers_header_bytes + peer_address_bytes * count)
        return std::nullopt;
    out.peers.reserve(count);
    for (unsigned i = 0; i < count; ++i) {
        PeerAddress peer{in.raw<decltype(PeerAddress::address)>(), 0};
        peer.port = in.u16();
        if (peer.port == 0) return std::nullopt;
        out.peers.push_back(peer);
    }
    return out;
}

std::optional<ZestMessage> parse_claims(Bytes message) {
    if (message.size < claims_header_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    Claims out{in.raw<InfoHash>(), false, {}};
    auto const flags = in.u8();
    auto const count = in.u16();
    if (flags > 1 || count > max_claims || (count != 0 && flags == 0) ||
        message.size != claims_header_bytes + claim_bytes * count)
        return std::nullopt;
    out.downloading = flags == 1;
    out.claims.reserve(count);
    std::uint32_t after = 0;
    for (unsigned i = 0; i < count; ++i) {
        Claim claim{{in.u32(), 0}, {}, 0};
        claim.chunks.end = in.u32();
        auto const state = in.u8();
        claim.progress = in.u16();
        if (!in_object(claim.chunks) || claim.chunks.first < after || state < 1 || state > 2) return std::nullopt;
        claim.state = static_cast<ClaimState>(state);
        after = claim.chunks.end;
        out.claims.push_back(claim);
    }
    return out;
}

std::optional<ZestMessage> parse_manifest(Bytes message) {
    if (message.size < manifest_header_bytes) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    ManifestPart out{};
    out.id = in.u32();
    auto const answer = answer_of(in.u8());
    out.chunks = in.u32();
    out.first = in.u32();
    out.count = in.u32();
    if (!answer || out.count > max_manifest_entries || out.chunks > max_object_chunks || out.first > out.chunks ||
        out.count > out.chunks - out.first || message.size != manifest_header_bytes + manifest_entry_bytes * out.count)
        return std::nullopt;
    out.answer = *answer;
    out.entries = {in.rest(), manifest_entry_bytes * out.count};
    for (std::uint32_t i = 0; i < out.count; ++i) {
        auto const length = get_u32(out.entries.data + manifest_entry_bytes * i + 32);
        if (length == 0 || length > max_chunk_bytes) return std::nullopt;
    }
    return out;
}

}  // namespace

std::uint32_t get_u32(std::uint8_t const *p) noexcept {
    return (std::uint32_t{p[0]} << 24) | (std::uint32_t{p[1]} << 16) | (std::uint32_t{p[2]} << 8) | p[3];
}

std::uint8_t *put_u32(std::uint8_t *p, std::uint32_t value) noexcept {
    p[0] = static_cast<std::uint8_t>(value >> 24);
    p[1] = static_cast<std::uint8_t>(value >> 16);
    p[2] = static_cast<std::uint8_t>(value >> 8);
    p[3] = static_cast<std::uint8_t>(value);
    return p + 4;
}

std::optional<XetMessage> parse_xet(Bytes message) {
    if (message.size < 5) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    switch (static_cast<Xet>(message.data[0])) {
        case Xet::request: {
            // The length tells the dialects apart: a chunk by its hash, or a range of a xorb.
            if (message.size == 37) {
                auto const id = in.u32();
                return ChunkRequest{id, in.hash()};
            }
            if (message.size == 45) {
                XorbRequest out{};
                out.id = in.u32();
                out.xorb = in.hash();
                out.chunks.first = in.u32();
                out.chunks.end = in.u32();
                if (out.chunks.first >= out.chunks.end) return std::nullopt;
                return out;
            }
            return std::nullopt;
        }
        case Xet::response: {
            if (message.size < chunk_response_header_bytes) return std::nullopt;
            auto const id = in.u32();
            if (in.u32() != message.size - chunk_response_header_bytes) return std::nullopt;
            return ChunkResponse{id, {in.rest(), message.size - chunk_response_header_bytes}};
        }
        case Xet::not_found:
            // ccBitTorrent leaves the hash out; the request id is all that is needed.
            if (message.size != 5 && message.size != 37) return std::nullopt;
            return ChunkNotFound{in.u32()};
        case Xet::error: {
            if (message.size < 9) return std::nullopt;
            auto const id = in.u32();
            return ChunkError{id, in.u32()};
        }
    }
    return std::nullopt;
}

std::vector<std::uint8_t> chunk_request(std::uint32_t id, Hash const &chunk) {
    return Writer(37, static_cast<std::uint8_t>(Xet::request)).u32(id).hash(chunk).take();
}

std::vector<std::uint8_t> chunk_not_found(std::uint32_t id, Hash const &hash) {
    return Writer(37, static_cast<std::uint8_t>(Xet::not_found)).u32(id).hash(hash).take();
}

std::vector<std::uint8_t> chunk_error(std::uint32_t id, std::uint32_t code, std::string_view text) {
    return Writer(9 + text.size(), static_cast<std::uint8_t>(Xet::error)).u32(id).u32(code).text(text).take();
}

void put_chunk_response_header(std::uint8_t *out, std::uint32_t id, std::uint32_t size) {
    *out = static_cast<std::uint8_t>(Xet::response);
    put_u32(put_u32(out + 1, id), size);
}

void put_xorb_response_header(std::uint8_t *out, std::uint32_t id, std::uint32_t first, std::uint32_t size) {
    *out = static_cast<std::uint8_t>(Xet::response);
    put_u32(put_u32(put_u32(out + 1, id), first), size);
}

void put_stored_chunk_header(std::uint8_t *out, std::uint32_t size) {
    // Xorb format: version, packed length (little-endian, 24 bits), scheme 0 (none), unpacked length.
    out[0] = 0;
    out[4] = 0;
    for (int i = 0; i < 3; ++i) out[1 + i] = out[5 + i] = static_cast<std::uint8_t>(size >> (8 * i));
}

std::optional<ZestMessage> parse_zest(Bytes message) {
    if (message.size < 5) return std::nullopt;
    Reader in({message.data + 1, message.size - 1});
    switch (static_cast<Zest>(message.data[0])) {
        case Zest::have_request:
            return parse_have_request(message);
        case Zest::have:
            return parse_have(message);
        case Zest::manifest_request: {
            if (message.size != 46) return std::nullopt;
            ManifestRequest out{};
            out.id = in.u32();
            auto const kind = kind_of(in.u8());
            out.hash = in.hash();
            out.first = in.u32();
            out.count = in.u32();
            if (!kind || out.count == 0 || out.count > max_manifest_entries || out.first >= max_object_chunks)
                return std::nullopt;
            out.kind = *kind;
            return out;
        }
        case Zest::manifest:
            return parse_manifest(message);
        case Zest::range_request: {
            if (message.size != 46) return std::nullopt;
            RangeRequest out{};
            out.id = in.u32();
            auto const kind = kind_of(in.u8());
            out.hash = in.hash();
            out.chunks.first = in.u32();
            out.chunks.end = in.u32();
            if (!kind || !in_object(out.chunks) || out.chunks.count() > max_range_chunks) return std::nullopt;
            out.kind = *kind;
            return out;
        }
        case Zest::range_data: {
            if (message.size <= range_data_header_bytes || message.size > range_data_header_bytes + max_chunk_bytes)
                return std::nullopt;
            auto const id = in.u32();
            auto const chunk = in.u32();
            return RangeData{id, chunk, {in.rest(), message.size - range_data_header_bytes}};
        }
        case Zest::range_end: {
            if (message.size != 6) return std::nullopt;
            auto const id = in.u32();
            auto const answer = answer_of(in.u8());
            if (!answer) return std::nullopt;
            return RangeEnd{id, *answer};
        }
        case Zest::cancel:
            if (message.size != 5) return std::nullopt;
            return Cancel{in.u32()};
        case Zest::have_update:
            return parse_have_update(message);
        case Zest::peers:
            return parse_peers(message);
        case Zest::claims:
            return parse_claims(message);
        case Zest::follow_request: {
            if (message.size != follow_request_bytes) return std::nullopt;
            FollowRequest out{};
            out.id = in.u32();
            out.xorb = in.hash();
            out.chunks.first = in.u32();
            out.chunks.end = in.u32();
            if (!in_object(out.chunks) || out.chunks.count() > max_range_chunks) return std::nullopt;
            return out;
        }
    }
    return std::nullopt;
}

std::vector<std::uint8_t> have_request(std::uint32_t id, Kind kind, InfoHash const &swarm, bool updates,
                                       Hash const &proof) {
    return Writer(have_request_bytes, static_cast<std::uint8_t>(Zest::have_request))
        .u32(id)
        .u8(static_cast<std::uint8_t>(kind))
        .raw(swarm)
        .u8(updates ? 1 : 0)
        .hash(proof)
        .take();
}

std::vector<std::uint8_t> have(std::uint32_t id, Answer answer, Hash const &proof, std::uint32_t chunks,
                               std::vector<ChunkSpan> const &ranges) {
    Writer out(have_header_bytes + 8 * ranges.size(), static_cast<std::uint8_t>(Zest::have));
    out.u32(id).u8(static_cast<std::uint8_t>(answer)).hash(proof);
    write_ranges(out, chunks, ranges);
    return out.take();
}

std::vector<std::uint8_t> have_update(std::uint32_t id, Answer answer, std::uint32_t chunks,
                                      std::vector<ChunkSpan> const &ranges) {
    Writer out(have_update_header_bytes + 8 * ranges.size(), static_cast<std::uint8_t>(Zest::have_update));
    out.u32(id).u8(static_cast<std::uint8_t>(answer));
    write_ranges(out, chunks, ranges);
    return out.take();
}

std::vector<std::uint8_t> peers(InfoHash const &swarm, std::vector<PeerAddress> const &known) {
    Writer out(peers_header_bytes + peer_address_bytes * known.size(), static_cast<std::uint8_t>(Zest::peers));
    out.raw(swarm).u8(static_cast<std::uint8_t>(known.size()));
    for (auto const &peer : known) out.raw(peer.address).u16(peer.port);
    return out.take();
}

std::vector<std::uint8_t> claims(InfoHash const &swarm, bool downloading, std::vector<Claim> const &claims) {
    Writer out(claims_header_bytes + claim_bytes * claims.size(), static_cast<std::uint8_t>(Zest::claims));
    out.raw(swarm).u8(downloading ? 1 : 0).u16(static_cast<std::uint16_t>(claims.size()));
    for (auto const &claim : claims)
        out.u32(claim.chunks.first)
            .u32(claim.chunks.end)
            .u8(static_cast<std::uint8_t>(claim.state))
            .u16(claim.progress);
    return out.take();
}

std::vector<std::uint8_t> manifest_request(std::uint32_t id, Kind kind, Hash const &hash, std::uint32_t first,
                                           std::uint32_t count) {
    return Writer(46, static_cast<std::uint8_t>(Zest::manifest_request))
        .u32(id)
        .u8(static_cast<std::uint8_t>(kind))
        .hash(hash)
        .u32(first)
        .u32(count)
        .take();
}

void put_manifest_header(std::uint8_t *out, std::uint32_t id, Answer answer, std::uint32_t chunks, std::uint32_t first,
                         std::uint32_t count) {
    *out = static_cast<std::uint8_t>(Zest::manifest);
    out = put_u32(out + 1, id);
    *out++ = static_cast<std::uint8_t>(answer);
    put_u32(put_u32(put_u32(out, chunks), first), count);
}

std::vector<std::uint8_t> range_request(std::uint32_t id, Kind kind, Hash const &hash, ChunkSpan chunks) {
    return Writer(46, static_cast<std::uint8_t>(Zest::range_request))
        .u32(id)
        .u8(static_cast<std::uint8_t>(kind))
        .hash(hash)
        .u32(chunks.first)
        .u32(chunks.end)
        .take();
}

void put_range_data_header(std::uint8_t *out, std::uint32_t id, std::uint32_t chunk) {
    *out = static_cast<std::uint8_t>(Zest::range_data);
    put_u32(put_u32(out + 1, id), chunk);
}

std::vector<std::uint8_t> range_end(std::uint32_t id, Answer answer) {
    return Writer(6, static_cast<std::uint8_t>(Zest::range_end)).u32(id).u8(static_cast<std::uint8_t>(answer)).take();
}

std::vector<std::uint8_t> cancel(std::uint32_t id) {
    return Writer(5, static_cast<std::uint8_t>(Zest::cancel)).u32(id).take();
}

std::vector<std::uint8_t> follow_request(std::uint32_t id, Hash const &xorb, ChunkSpan chunks) {
    return Writer(follow_request_bytes, static_cast<std::uint8_t>(Zest::follow_request))
        .u32(id)
        .hash(xorb)
        .u32(chunks.first)
        .u32(chunks.end)
        .take();
}

}  // namespace zest::wire

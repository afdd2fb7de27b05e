#include "requester.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "clock.hpp"

namespace zest {
namespace {

// Single chunks that are asked for at once of a peer that answers them one by one.
constexpr std::uint32_t chunk_window = 32;
// Bytes of answers that nobody waits for any more (a cancel crosses them on the way) beyond those that were of use,
// before we hang up.
constexpr std::uint64_t max_stray_bytes = 64u << 20;

// Who sends something all the time, and nothing of a follow for so many times as long as it may be silent, is taken for
// silent.
constexpr std::int64_t max_silences = 3;

}  // namespace

std::uint32_t Requester::take_ids(std::uint32_t count) {
    // Ids only have to differ among the requests that are open. Start again long before they overflow.
    if (next_id_ > 0x7fff0000u && open() == 0 && watches_.empty()) next_id_ = 1;
    auto const id = next_id_;
    next_id_ += count;
    return id;
}

void Requester::ask_have(std::uint64_t token, Kind kind, Hash const &hash, bool updates, std::uint32_t timeout_ms,
                         std::int64_t now_ms) {
    auto const id = take_ids(1);
    auto const at =
        questions_.emplace(id, Question{token, ZEST_EVENT_HAVE, kind, hash, updates, 0, 0, now_ms + timeout_ms}).first;
    if (!link_.zest_id) return end_question(at, ZEST_OUTCOME_UNSUPPORTED);
    link_.send_zest(wire::have_request(id, kind, names_.of(kind, hash), updates,
                                       asking_proof(hash, kind, link_.here, link_.there())));
}

void Requester::forget_have(std::uint64_t token) {
    for (auto &[id, question] : questions_)
        if (question.event_type == ZEST_EVENT_HAVE && question.token == token) question.updates = false;
    for (auto at = watches_.begin(); at != watches_.end();) {
        auto const here = at++;
        if (here->second.token != token) continue;
        link_.send_zest(wire::cancel(here->first));
        watches_.erase(here);
    }
}

void Requester::ask_manifest(std::uint64_t token, Kind kind, Hash const &hash, std::uint32_t first, std::uint32_t count,
                             std::uint32_t timeout_ms, std::int64_t now_ms) {
    auto const id = take_ids(1);
    auto const at =
        questions_
            .emplace(id, Question{token, ZEST_EVENT_MANIFEST, kind, hash, false, first, count, now_ms + timeout_ms})
            .first;
    if (!link_.zest_id || count == 0 || count > wire::max_manifest_entries)
        return end_question(at, ZEST_OUTCOME_UNSUPPORTED);
    link_.send_zest(wire::manifest_request(id, kind, hash, first, count));
}

void Requester::ask_piece(Piece piece, std::int64_t now_ms) {
    auto const count = piece.count;
    bool const fits = count != 0 && count <= wire::max_range_chunks && piece.file_first <= piece.transfer->chunks() &&
                      count <= piece.transfer->chunks() - piece.file_first &&
                      piece.object_first <= wire::max_object_chunks - count;
    auto const id = take_ids(fits ? count : 1);
    if (pieces_.empty()) heard_ms_ = now_ms;
    Running running;
    running.piece = std::move(piece);
    running.asked_ms = now_ms;
    if (!link_.zest_id) running.came.resize(fits ? count : 1);
    auto const at = pieces_.emplace(id, std::move(running)).first;
    if (!fits || !(link_.zest_id || link_.xet_id)) return end_piece(at, ZEST_OUTCOME_UNSUPPORTED);
    ask_on();
}

void Requester::ask_on() {
    if (turns_.cap_bytes_s() == 0) {
        for (auto at = next_to_ask(); at != pieces_.end(); at = next_to_ask())
            ask_part(at->first, at->second, std::numeric_limits<std::size_t>::max());
    } else if (next_to_ask() != pieces_.end()) {
        turns_.ask(link_.number(), link_.host(), false, [this] { return take_turn(); });
    }
}

// With a cap no more is asked for than comes within a moment, so that it is the cap that decides who brings the rest.
Requester::Pieces::iterator Requester::next_to_ask() {
    auto const cap = turns_.cap_bytes_s();
    if (cap != 0 && bytes_on_the_way() >= std::max<std::uint64_t>(cap / 4, 2 * wire::max_chunk_bytes))
        return pieces_.end();
    return std::find_if(pieces_.begin(), pieces_.end(), [](auto const &entry) {
        auto const &running = entry.second;
        return running.asked < running.piece.count && running.outstanding < chunk_window;
    });
}

std::size_t Requester::take_turn() {
    auto const at = next_to_ask();
    if (at == pieces_.end() || link_.gone()) return 0;
    auto const bytes = ask_part(at->first, at->second, turns_.batch_bytes());
    turns_.finished();
    ask_on();
    return bytes;
}

std::size_t Requester::ask_part(std::uint32_t id, Running &running, std::size_t most_bytes) {
    auto const &piece = running.piece;
    auto const &list = *piece.transfer->list();
    if (!running.waiting()) running.asked_ms = steady_ms();
    auto const first = running.asked;
    std::size_t bytes = 0;
    while (running.asked < piece.count) {
        auto const size = list.length(piece.file_first + running.asked);
        if (bytes != 0 && bytes + size > most_bytes) break;
        if (!running.came.empty()) {
            if (running.outstanding == chunk_window) break;
            link_.send_xet(wire::chunk_request(id + running.asked, list.hash(piece.file_first + running.asked)));
            ++running.outstanding;
        }
        bytes += size;
        ++running.asked;
    }
    if (running.came.empty()) {
        running.parts.push_back({id + first, running.asked});
        link_.send_zest(wire::range_request(id + first, piece.kind, piece.hash,
                                            {piece.object_first + first, piece.object_first + running.asked}));
    }
    return bytes;
}

std::uint64_t Requester::bytes_on_the_way() const {
    std::uint64_t bytes = 0;
    for (auto const &[id, running] : pieces_) {
        auto const first = running.piece.file_first;
        if (running.asked > running.taken)
            bytes += running.piece.transfer->list()->bytes({first + running.taken, first + running.asked});
    }
    return bytes;
}

void Requester::cancel_parts(Running const &running) {
    for (auto const &part : running.parts) link_.send_zest(wire::cancel(part.id));
}

void Requester::cancel_piece(std::uint64_t token) {
    for (auto at = pieces_.begin(); at != pieces_.end(); ++at) {
        if (at->second.piece.token != token) continue;
        cancel_parts(at->second);
        return end_piece(at, ZEST_OUTCOME_CANCELLED);
    }
    for (auto at = follows_.begin(); at != follows_.end(); ++at) {
        if (at->second.token != token) continue;
        link_.send_zest(wire::cancel(at->first));
        return end_follow(at, ZEST_OUTCOME_CANCELLED);
    }
}

void Requester::follow(std::uint64_t token, DraftPtr draft, std::uint32_t timeout_ms, std::int64_t now_ms) {
    auto const chunks = draft->chunks;
    auto const at = follows_.emplace(take_ids(1), Following{token, std::move(draft), timeout_ms, now_ms}).first;
    if (!link_.zest_id || chunks.count() > wire::max_range_chunks) return end_follow(at, ZEST_OUTCOME_UNSUPPORTED);
    link_.send_zest(wire::follow_request(at->first, at->second.draft->xorb, chunks));
}

void Requester::end_follow(Follows::iterator at, std::uint32_t outcome, int error_number) {
    auto const &[id, following] = *at;
    following.draft->end();
    zest_event event{};
    event.type = ZEST_EVENT_PIECE;
    event.peer = link_.number();
    event.token = following.token;
    event.status = outcome;
    event.count = following.draft->count();
    event.bytes = outcome == ZEST_OUTCOME_IO ? static_cast<std::uint64_t>(error_number) : following.draft->bytes();
    follows_.erase(at);
    events_.push(event);
}

Requester::Verdict Requester::follow_on(Follows::iterator at, wire::RangeData const &message, std::int64_t now_ms) {
    auto &[id, following] = *at;
    auto &draft = *following.draft;
    if (message.chunk != draft.chunks.first + draft.count()) return Verdict::violation;
    following.heard_ms = fed_ms_ = now_ms;
    int error_number = 0;
    switch (draft.write(message.data, error_number)) {
        case Draft::Written::wrong:
            ++chunks_wrong_;
            lie_ = "sent more than there is of a part of a xorb";
            end_follow(at, ZEST_OUTCOME_WRONG);
            return Verdict::liar;
        case Draft::Written::closed:
            link_.send_zest(wire::cancel(id));
            end_follow(at, ZEST_OUTCOME_CANCELLED);
            return Verdict::fine;
        case Draft::Written::failed:
            link_.send_zest(wire::cancel(id));
            end_follow(at, ZEST_OUTCOME_IO, error_number);
            return Verdict::fine;
        case Draft::Written::yes:
            break;
    }
    bytes_down_ += message.data.size;
    stray_bytes_ -= std::min<std::uint64_t>(stray_bytes_, message.data.size);
    if (draft.complete()) end_follow(at, ZEST_OUTCOME_OK);
    return Verdict::fine;
}

void Requester::end_piece(Pieces::iterator at, std::uint32_t outcome) {
    auto const &running = at->second;
    zest_event event{};
    event.type = ZEST_EVENT_PIECE;
    event.peer = link_.number();
    event.token = running.piece.token;
    event.status = outcome;
    event.count = running.taken;
    event.bytes = running.bytes;
    auto const writer = running.writer;
    pieces_.erase(at);
    if (writer)
        writer->end(event);
    else
        events_.push(event);
}

void Requester::end_question(std::map<std::uint32_t, Question>::iterator at, std::uint32_t outcome) {
    zest_event event{};
    event.type = at->second.event_type;
    event.peer = link_.number();
    event.token = at->second.token;
    event.status = outcome;
    questions_.erase(at);
    events_.push(event);
}

// An answer to nothing: late, which is fair within bounds, or made up.
Requester::Verdict Requester::stray(std::uint32_t id, std::size_t size) {
    stray_bytes_ += size;
    return id == 0 || id >= next_id_ || stray_bytes_ > max_stray_bytes ? Verdict::violation : Verdict::fine;
}

Requester::Verdict Requester::on(wire::Have const &message) {
    auto const at = questions_.find(message.id);
    if (at == questions_.end() || at->second.event_type != ZEST_EVENT_HAVE) return stray(message.id, 16);
    if (message.answer != Answer::ok) {
        end_question(at, message.answer == Answer::busy ? ZEST_OUTCOME_BUSY : ZEST_OUTCOME_NOT_FOUND);
        return Verdict::fine;
    }
    auto const &asked = at->second;
    // Who claims to hold what it cannot name would learn the hash from our next question.
    if (!same(message.proof, holding_proof(asked.hash, asked.kind, link_.here, link_.there())))
        return Verdict::violation;
    link_.add_common(names_.of(asked.kind, asked.hash));
    std::vector<std::uint8_t> payload(sizeof(ChunkSpan) * message.ranges.size());
    if (!payload.empty()) std::memcpy(payload.data(), message.ranges.data(), payload.size());
    zest_event event{};
    event.type = ZEST_EVENT_HAVE;
    event.peer = link_.number();
    event.token = at->second.token;
    event.count = message.chunks;
    if (asked.updates) watches_[message.id] = Watch{asked.token, std::make_shared<PendingRanges>()};
    questions_.erase(at);
    events_.push(event, std::move(payload));
    return Verdict::fine;
}

void Requester::tell_more(Watch &watch, std::int64_t now_ms) {
    // An event costs the program more than a message costs the peer.
    watch.held_back = !events_.waits(*watch.pending) && !watch.events.take(now_ms);
    if (watch.held_back) return;
    zest_event event{};
    event.type = ZEST_EVENT_HAVE_MORE;
    event.peer = link_.number();
    event.token = watch.token;
    events_.push_ranges(event, watch.pending);
}

Requester::Verdict Requester::on(wire::HaveUpdate const &message, std::int64_t now_ms) {
    auto const at = watches_.find(message.id);
    // Also one that crosses the end of waiting for the HAVE itself.
    if (at == watches_.end()) return stray(message.id, 16 + sizeof(ChunkSpan) * message.ranges.size());
    if (message.answer == Answer::ok) {
        events_.add_ranges(at->second.pending, message.chunks, message.ranges);
        tell_more(at->second, now_ms);
    } else {
        zest_event event{};
        event.type = ZEST_EVENT_HAVE_MORE;
        event.peer = link_.number();
        event.token = at->second.token;
        event.status = ZEST_OUTCOME_NOT_FOUND;
        watches_.erase(at);
        events_.push(event);
    }
    return Verdict::fine;
}

Requester::Verdict Requester::on(wire::ManifestPart const &message) {
    auto const at = questions_.find(message.id);
    if (at == questions_.end() || at->second.event_type != ZEST_EVENT_MANIFEST)
        return stray(message.id, message.entries.size);
    if (message.answer != Answer::ok) {
        end_question(at, message.answer == Answer::busy ? ZEST_OUTCOME_BUSY : ZEST_OUTCOME_NOT_FOUND);
        return Verdict::fine;
    }
    if (message.first != at->second.first || message.count > at->second.count) return Verdict::violation;
    std::vector<std::uint8_t> payload(std::size_t{36} * message.count);
    auto *hashes = payload.data();
    auto *lengths = payload.data() + std::size_t{32} * message.count;
    for (std::uint32_t i = 0; i < message.count; ++i) {
        auto const *entry = message.entries.data + wire::manifest_entry_bytes * i;
        std::memcpy(hashes + std::size_t{32} * i, entry, 32);
        auto const length = wire::get_u32(entry + 32);
        std::memcpy(lengths + std::size_t{4} * i, &length, 4);
    }
    zest_event event{};
    event.type = ZEST_EVENT_MANIFEST;
    event.peer = link_.number();
    event.token = at->second.token;
    event.first = message.first;
    event.count = message.chunks;
    questions_.erase(at);
    events_.push(event, std::move(payload));
    return Verdict::fine;
}

Requester::Verdict Requester::take(Pieces::iterator at, std::uint32_t index, Bytes data, std::int64_t now_ms,
                                   bool &ended) {
    auto &running = at->second;
    auto const chunk = running.piece.file_first + index;
    ended = true;
    if (!running.piece.transfer->proves(chunk, data)) {
        ++chunks_wrong_;
        lie_ = "sent " + std::to_string(data.size) + " bytes that are not the chunk asked for (chunk " +
               std::to_string(chunk) + " of the file)";
        end_piece(at, ZEST_OUTCOME_WRONG);
        return Verdict::liar;
    }
    heard_ms_ = fed_ms_ = now_ms;
    if (!running.writer)
        running.writer =
            std::make_shared<PieceWriter>(writes_, events_, post_, running.piece.transfer, running.piece.file_first);
    if (running.writer->failed()) {
        cancel_parts(running);
        end_piece(at, ZEST_OUTCOME_CANCELLED);
        return Verdict::fine;
    }
    running.writer->add(chunk, data);
    bytes_down_ += data.size;
    link_.gave_ms = now_ms;
    // What crossed a cancel is forgiven to who goes on being of use.
    stray_bytes_ -= std::min<std::uint64_t>(stray_bytes_, data.size);
    running.bytes += data.size;
    ended = false;
    return Verdict::fine;
}

Requester::Verdict Requester::on(wire::RangeData const &message, std::int64_t now_ms) {
    if (auto const follow = follows_.find(message.id); follow != follows_.end())
        return follow_on(follow, message, now_ms);
    auto const at = piece_of_range(message.id);
    if (at == pieces_.end()) return stray(message.id, message.data.size);
    auto &running = at->second;
    // Ranges are answered in order, and chunks of a range too; anything else is not an answer to what was asked.
    if (message.id != running.parts.front().id || message.chunk != running.piece.object_first + running.taken)
        return Verdict::violation;
    bool ended;
    auto const verdict = take(at, running.taken, message.data, now_ms, ended);
    if (ended) return verdict;
    if (++running.taken == running.parts.front().end) running.parts.pop_front();
    if (running.taken == running.piece.count) end_piece(at, ZEST_OUTCOME_OK);
    ask_on();
    return Verdict::fine;
}

Requester::Verdict Requester::on(wire::RangeEnd const &message) {
    if (auto const follow = follows_.find(message.id); follow != follows_.end()) {
        end_follow(follow, message.answer == Answer::busy ? ZEST_OUTCOME_BUSY : ZEST_OUTCOME_NOT_FOUND);
        return Verdict::fine;
    }
    auto const at = piece_of_range(message.id);
    if (at == pieces_.end()) return stray(message.id, 6);
    auto &running = at->second;
    if (message.id != running.parts.front().id) return Verdict::violation;
    running.parts.pop_front();
    cancel_parts(running);
    // A range that ends early with "ok" was not delivered either.
    end_piece(at, message.answer == Answer::busy ? ZEST_OUTCOME_BUSY : ZEST_OUTCOME_NOT_FOUND);
    return Verdict::fine;
}

Requester::Pieces::iterator Requester::piece_of(std::uint32_t id) {
    auto at = pieces_.upper_bound(id);
    if (at == pieces_.begin()) return pieces_.end();
    --at;
    return id - at->first < at->second.piece.count ? at : pieces_.end();
}

Requester::Pieces::iterator Requester::piece_of_range(std::uint32_t id) {
    auto const at = piece_of(id);
    if (at == pieces_.end()) return at;
    auto const &parts = at->second.parts;
    bool const open = std::any_of(parts.begin(), parts.end(), [&](auto const &part) { return part.id == id; });
    return open ? at : pieces_.end();
}

Requester::Pieces::iterator Requester::piece_of_chunk_request(std::uint32_t id) {
    auto const at = piece_of(id);
    if (at == pieces_.end()) return at;
    auto const &running = at->second;
    auto const index = id - at->first;
    return running.came.empty() || index >= running.asked || running.came[index] ? pieces_.end() : at;
}

Requester::Verdict Requester::on(wire::ChunkResponse const &message, std::int64_t now_ms) {
    auto const at = piece_of_chunk_request(message.id);
    if (at == pieces_.end()) return stray(message.id, message.data.size);
    auto &running = at->second;
    auto const index = message.id - at->first;
    bool ended;
    auto const verdict = take(at, index, message.data, now_ms, ended);
    if (ended) return verdict;
    running.came[index] = true;
    --running.outstanding;
    while (running.taken < running.piece.count && running.came[running.taken]) ++running.taken;
    if (running.taken == running.piece.count) end_piece(at, ZEST_OUTCOME_OK);
    ask_on();
    return Verdict::fine;
}

Requester::Verdict Requester::on(wire::ChunkNotFound const &message) {
    auto const at = piece_of_chunk_request(message.id);
    if (at == pieces_.end()) return stray(message.id, 5);
    end_piece(at, ZEST_OUTCOME_NOT_FOUND);
    return Verdict::fine;
}

Requester::Verdict Requester::on(wire::ChunkError const &message) {
    auto const at = piece_of_chunk_request(message.id);
    if (at == pieces_.end()) return stray(message.id, 9);
    end_piece(at, ZEST_OUTCOME_BUSY);
    return Verdict::fine;
}

void Requester::tick(std::int64_t now_ms) {
    for (auto &[id, watch] : watches_)
        if (watch.held_back) tell_more(watch, now_ms);
    for (auto at = questions_.begin(); at != questions_.end();) {
        auto const here = at++;
        if (now_ms >= here->second.deadline_ms) end_question(here, ZEST_OUTCOME_TIMEOUT);
    }
    for (auto at = follows_.begin(); at != follows_.end();) {
        auto const here = at++;
        auto const silent_ms = now_ms - here->second.heard_ms;
        std::int64_t const patience_ms = here->second.timeout_ms;
        // Answers wait behind each other: a slow line may be busy with what else it was asked for.
        bool const is_fed = now_ms - fed_ms_ < patience_ms && silent_ms < max_silences * patience_ms;
        if (silent_ms < patience_ms || is_fed) continue;
        link_.send_zest(wire::cancel(here->first));
        end_follow(here, ZEST_OUTCOME_TIMEOUT);
    }
    for (auto at = pieces_.begin(); at != pieces_.end();) {
        auto const here = at++;
        auto const &running = here->second;
        if (!running.waiting()) continue;  // for its turn
        // Pieces wait behind each other: what counts is how long the peer has sent nothing of use at all.
        if (now_ms - std::max(heard_ms_, running.asked_ms) < running.piece.timeout_ms) continue;
        cancel_parts(running);
        end_piece(here, ZEST_OUTCOME_TIMEOUT);
    }
}

void Requester::end_all(std::uint32_t outcome) {
    while (!questions_.empty()) end_question(questions_.begin(), outcome);
    while (!pieces_.empty()) end_piece(pieces_.begin(), outcome);
    while (!follows_.empty()) end_follow(follows_.begin(), outcome);
    watches_.clear();
    turns_.forget(link_.number());
}

}  // namespace zest

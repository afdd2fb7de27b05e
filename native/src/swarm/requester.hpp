// Our questions to one peer: which are open, what has arrived, and when we stop waiting.
// Used on the network thread only. Times are milliseconds of the session's steady clock.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bandwidth_turns.hpp"
#include "bucket.hpp"
#include "draft.hpp"
#include "events.hpp"
#include "infohash.hpp"
#include "link.hpp"
#include "piece_writer.hpp"
#include "transfer.hpp"

namespace zest {

class Requester {
public:
    Requester(Link &link, Events &events, SwarmNames const &names, BandwidthTurns &turns, WriteQueue &writes,
              Post const &post)
        : link_(link), events_(events), names_(names), turns_(turns), writes_(writes), post_(post) {}

    struct Piece {
        std::uint64_t token;
        std::shared_ptr<Transfer> transfer;
        Kind kind;
        Hash hash;
        std::uint32_t object_first;
        std::uint32_t file_first;
        std::uint32_t count;
        std::uint32_t timeout_ms;
    };

    void ask_have(std::uint64_t token, Kind kind, Hash const &hash, bool updates, std::uint32_t timeout_ms,
                  std::int64_t now_ms);
    void forget_have(std::uint64_t token);
    void ask_manifest(std::uint64_t token, Kind kind, Hash const &hash, std::uint32_t first, std::uint32_t count,
                      std::uint32_t timeout_ms, std::int64_t now_ms);
    void ask_piece(Piece piece, std::int64_t now_ms);
    // Chunks of a draft that the peer has, and those that it gets. They end as a piece does.
    void follow(std::uint64_t token, DraftPtr draft, std::uint32_t timeout_ms, std::int64_t now_ms);
    void cancel_piece(std::uint64_t token);

    // What a message means for the connection.
    enum class Verdict { fine, violation, liar };
    Verdict on(wire::Have const &message);
    Verdict on(wire::HaveUpdate const &message, std::int64_t now_ms);
    Verdict on(wire::ManifestPart const &message);
    Verdict on(wire::RangeData const &message, std::int64_t now_ms);
    Verdict on(wire::RangeEnd const &message);
    Verdict on(wire::ChunkResponse const &message, std::int64_t now_ms);
    Verdict on(wire::ChunkNotFound const &message);
    Verdict on(wire::ChunkError const &message);

    // Give up what waits too long, and tell what was held back.
    void tick(std::int64_t now_ms);
    // The connection ended: everything open ends with this outcome.
    void end_all(std::uint32_t outcome);

    std::uint32_t open() const noexcept {
        return static_cast<std::uint32_t>(questions_.size() + pieces_.size() + follows_.size());
    }
    std::uint64_t bytes_down() const noexcept { return bytes_down_; }
    std::uint64_t chunks_wrong() const noexcept { return chunks_wrong_; }
    std::string const &lie() const noexcept { return lie_; }

private:
    struct Question {  // a have or a manifest
        std::uint64_t token;
        std::uint32_t event_type;
        Kind kind;
        Hash hash;
        bool updates;         // of a have: wants to be told more
        std::uint32_t first;  // of a manifest
        std::uint32_t count;
        std::int64_t deadline_ms;
    };
    // Events about one question. An honest peer sends a message in 100 ms; one that sends more is told of at this pace,
    // with all that it said.
    static constexpr double updates_burst = 20;
    static constexpr double updates_per_s = 12;
    struct Watch {  // the peer says when it holds more
        std::uint64_t token;
        std::shared_ptr<PendingRanges> pending;
        Bucket events{updates_burst, updates_per_s};
        bool held_back = false;
    };
    struct Running {
        Piece piece;
        std::int64_t asked_ms = 0;
        std::uint32_t taken = 0;  // chunks, from the start of the piece: proved, and given to the writer
        std::uint64_t bytes = 0;
        std::uint32_t asked = 0;  // chunks, from the start of the piece: all at once, or as the cap permits
        // A part of a range begins at the chunk that its request id exceeds the piece's by.
        struct Part {
            std::uint32_t id;
            std::uint32_t end;
        };
        std::deque<Part> parts;                 // asked for, and not answered to the end
        std::shared_ptr<PieceWriter> writer{};  // from the first chunk on
        // BEP XET v1 answers chunk by chunk, in any order: which have come.
        std::vector<bool> came;
        std::uint32_t outstanding = 0;

        bool waiting() const noexcept { return !parts.empty() || outstanding != 0; }  // for the peer
    };
    struct Following {
        std::uint64_t token;
        DraftPtr draft;
        std::uint32_t timeout_ms;
        std::int64_t heard_ms;
    };
    using Follows = std::map<std::uint32_t, Following>;
    using Pieces = std::map<std::uint32_t, Running>;  // by the first of as many request ids as it has chunks
    // What a piece gets out of one chunk.
    Verdict take(Pieces::iterator at, std::uint32_t index, Bytes data, std::int64_t now_ms, bool &ended);
    // Ask for what of the pieces has not been asked for, as the cap permits.
    void ask_on();
    Pieces::iterator next_to_ask();
    std::size_t take_turn();
    std::size_t ask_part(std::uint32_t id, Running &running, std::size_t most_bytes);
    std::uint64_t bytes_on_the_way() const;
    void cancel_parts(Running const &running);
    void tell_more(Watch &watch, std::int64_t now_ms);
    void end_piece(Pieces::iterator at, std::uint32_t outcome);
    void end_question(std::map<std::uint32_t, Question>::iterator at, std::uint32_t outcome);
    Verdict follow_on(Follows::iterator at, wire::RangeData const &message, std::int64_t now_ms);
    void end_follow(Follows::iterator at, std::uint32_t outcome, int error_number = 0);
    Pieces::iterator piece_of(std::uint32_t id);
    Pieces::iterator piece_of_range(std::uint32_t id);
    Pieces::iterator piece_of_chunk_request(std::uint32_t id);
    Verdict stray(std::uint32_t id, std::size_t size);
    std::uint32_t take_ids(std::uint32_t count);

    Link &link_;
    Events &events_;
    SwarmNames const &names_;
    BandwidthTurns &turns_;
    WriteQueue &writes_;
    Post const &post_;
    std::map<std::uint32_t, Question> questions_;
    std::map<std::uint32_t, Watch> watches_;
    Pieces pieces_;
    Follows follows_;
    std::uint32_t next_id_ = 1;
    std::int64_t heard_ms_ = 0;  // when the last chunk of any piece came
    std::int64_t fed_ms_ = 0;    // ... or of anything that is followed
    std::uint64_t bytes_down_ = 0;
    std::uint64_t stray_bytes_ = 0;
    std::uint64_t chunks_wrong_ = 0;
    std::string lie_;
};

}  // namespace zest

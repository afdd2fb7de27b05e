// One peer's questions to us: answered in order, from the files that are offered, at the pace at which the peer
// takes the bytes. Used on the network thread only; reading happens on the reader's threads.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "bandwidth_turns.hpp"
#include "have_updates.hpp"
#include "link.hpp"
#include "reader.hpp"
#include "store.hpp"
#include "unsent_limit.hpp"

namespace zest {

// What the session gives every responder.
struct ResponderHost {
    Store &store;
    Drafts &drafts;
    ReaderPool &readers;
    BandwidthTurns &turns;
    HaveUpdates &updates;
    Post post;
    // Whether a peer has been of use lately.
    std::function<bool(Link const &)> gives;
    // An offered file is not what it was, or cannot be read any more.
    std::function<void(SharedFilePtr const &)> lost;
    // A peer follows something: it wants to be ticked.
    std::function<void()> followed;
    // Off: everybody is told that nothing is here.
    bool uploads = true;
};

class Responder final : public std::enable_shared_from_this<Responder>, public HaveUpdates::Listener {
public:
    Responder(Link &link, ResponderHost const &host) : link_(link), host_(host) {}

    void on(wire::HaveRequest const &message);
    void on(wire::ManifestRequest const &message);
    void on(wire::RangeRequest const &message);
    void on(wire::Cancel const &message);
    void on(wire::ChunkRequest const &message);
    void on(wire::XorbRequest const &message);
    void on(wire::FollowRequest const &message);

    // Pass on what has come of drafts meanwhile. Wanted every follow_tick_ms while the peer follows any.
    void tick();
    bool is_followed() const noexcept { return !follows_.empty(); }
    static constexpr std::int64_t follow_tick_ms = 20;

    // Nothing is uploaded from now on: what waits is refused, except for what is being read.
    void refuse_all();

    // What is said without having been asked: not while much of it waits for who does not read.
    bool takes_updates() const override;
    void send_update(std::vector<std::uint8_t> const &message) override;

    // The connection is gone: nothing may be sent any more.
    void close();

    std::uint32_t open() const noexcept { return static_cast<std::uint32_t>(queue_.size()); }
    std::uint64_t bytes_up() const noexcept { return bytes_up_; }
    // Payload bytes by the file that they came from.
    std::map<Hash, std::uint64_t> const &served() const noexcept { return served_; }

private:
    enum class What { have, manifest, range, chunk, xorb, draft };
    struct Reply {
        What what;
        std::uint32_t id;
        Kind kind = Kind::file;
        Hash hash{};
        ChunkSpan chunks{};  // of the object; what is left to send begins at `next`
        std::uint32_t next = 0;
        Located located{};
        bool looked = false;  // what had to be read to answer was read
        bool cancelled = false;
        bool updates = false;  // of a have: wants to be told more
        InfoHash swarm{};      // of a have: how the peer named the object, and
        Hash proof{};          // that it knows more than that name
        DraftPtr draft{};      // whose chunks are counted from its first
    };
    // A run of chunks of one file, or of a draft, that is read in one go, with room for a header before each and a tag
    // behind it.
    struct Batch {
        SharedFilePtr file;
        DraftPtr draft;
        ChunkSpan chunks;  // of the file or the draft
        std::size_t lead;  // header bytes before the first chunk's own header
        std::size_t header;
        std::size_t tail;  // bytes behind each chunk
        std::size_t bytes;
        std::vector<std::uint32_t> lengths;  // of the chunks
        std::size_t payload() const noexcept { return bytes - lead - (header + tail) * chunks.count(); }
    };
    // What the peer follows: its chunks before `next` are sent, or waiting in the queue.
    struct Follow {
        Follow(DraftPtr of, ChunkSpan come) : draft(std::move(of)), next(come.first), end(come.end) {
            ++draft->followers;
        }
        ~Follow() { --draft->followers; }
        Follow(Follow const &) = delete;
        Follow &operator=(Follow const &) = delete;
        DraftPtr const draft;
        std::uint32_t next;
        std::uint32_t const end;
        bool queued = false;
    };

    void enqueue(Reply reply);
    void refuse(Reply const &reply, Answer answer);
    void pump();
    // Goes on until something has to be read, and then with a turn does so: how many bytes.
    std::size_t advance(bool has_turn);
    void ask_for_turn();
    // Run `job` where disks may be waited for, and then `then` with the reply that is in front and what `job` gave (or
    // nothing); until then nothing is answered.
    template <typename Job, typename Then>
    void aside(Job job, Then then);
    bool answer_now(Reply &reply);
    // Queue what has come and is not sent. False: nothing more will come of it.
    bool feed(std::uint32_t id, Follow &follow);
    void passed_on(Reply const &reply);
    bool answer_have(Reply &reply);
    bool answer_manifest(Reply const &reply);
    void read_manifest(Located located, std::uint32_t chunks, ChunkSpan span);
    void prove(Hash const &xorb);
    // Where what is left of the reply lies, also when a file is not offered any more. False: nowhere; that was said.
    bool find_rest(Reply &reply);
    void find_chunk(Hash const &chunk);
    void give_up(Reply const &reply, Answer answer);
    void say(std::vector<std::uint8_t> const &message);
    std::unique_ptr<SendBlock> framed(std::vector<std::uint8_t> const &message) const;
    Batch next_batch(Reply const &reply) const;
    void read(Batch batch);
    void has_read(Batch const &batch, Got got, std::unique_ptr<SendBlock> block);
    void put_headers(Reply const &reply, Batch const &batch, SendBlock &block) const;
    void send(std::unique_ptr<SendBlock> block);
    // `then` is called when its bytes have left.
    template <typename Then>
    void send(std::unique_ptr<SendBlock> block, Then then);
    bool inside_xorb() const;

    Link &link_;
    ResponderHost const &host_;
    std::deque<Reply> queue_;
    std::map<std::uint32_t, Follow> follows_;  // by request
    bool reading_ = false;
    bool closed_ = false;
    // What waits to be sent before more is read; with one batch this bounds the memory of a peer.
    UnsentLimit limit_;
    std::size_t unsent_bytes_ = 0;
    std::size_t unsent_updates_bytes_ = 0;
    std::uint64_t bytes_up_ = 0;
    std::map<Hash, std::uint64_t> served_;
    SharedFilePtr last_chunk_of_;
    std::string host_name_;
};

}  // namespace zest

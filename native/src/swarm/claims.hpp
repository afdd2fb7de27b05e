// Claims: what each downloader of a file fetches itself, for the others that download it too. Only between peers that
// have proved to each other to know the file (Link::common). Used on the network thread only.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "bucket.hpp"
#include "events.hpp"
#include "wire.hpp"

namespace zest {

class Peer;

// What this node says. Nothing is queued: what counts is how things are when they can be sent.
class ClaimsTold {
public:
    // One message per file and peer in this time; if nothing but progress has changed, in the longer one.
    static constexpr std::int64_t pause_ms = 100;
    static constexpr std::int64_t progress_pause_ms = 500;

    using Peers = std::map<std::uint32_t, std::weak_ptr<Peer>>;

    // From now on this is how things are with the file of the swarm.
    void say(InfoHash const &swarm, bool downloading, std::vector<wire::Claim> claims, Peers const &peers);
    // This peer may be told of the swarm's file. If it was before, it is told all once more: it may have begun to
    // listen only now.
    void proved(Peer const &peer, InfoHash const &swarm);
    void gone(std::uint32_t peer);
    void tick(Peers const &peers, std::int64_t now_ms);
    // When tick() has something to do.
    std::int64_t due_ms() const noexcept { return due_ms_; }

private:
    struct Told {
        // Of what was sent last; 0: nothing.
        std::uint64_t version = 0;
        std::uint64_t change = 0;
        std::int64_t sent_ms = -progress_pause_ms;
        bool knows = false;  // that we download it
    };
    struct File {
        bool downloading = false;
        std::vector<wire::Claim> claims;
        std::uint64_t version = 0;  // counts changes of anything,
        std::uint64_t change = 0;   // and of more than progress
        std::map<std::uint32_t, Told> told;
    };
    void tick(InfoHash const &swarm, File &file, Peers const &peers, std::int64_t now_ms);

    std::map<InfoHash, File> files_;
    std::int64_t due_ms_ = std::numeric_limits<std::int64_t>::max();
};

// What peers say: for each of them and each file at most one event waits, with what was said last.
class ClaimsHeard {
public:
    explicit ClaimsHeard(Events &events) : events_(events) {}

    // Files that one peer may have events waiting for.
    static constexpr std::size_t max_files = 64;
    // Events about one file of one peer. An honest one sends a message in 100 ms; of one that sends more the latest is
    // told at this pace.
    static constexpr double burst = 20;
    static constexpr double per_s = 12;

    void heard(std::uint32_t peer, Hash const &file, wire::Claims const &claims, std::int64_t now_ms);
    void gone(std::uint32_t peer) { pending_.erase(peer); }
    // Tells what was held back.
    void tick(std::int64_t now_ms);

private:
    struct Said {
        std::shared_ptr<PendingLatest> latest = std::make_shared<PendingLatest>();
        Bucket pace{burst, per_s};
        bool held_back = false;
        zest_event event{};
        std::vector<std::uint8_t> payload;  // of what is held back
    };
    void tell(Said &said, std::int64_t now_ms);

    Events &events_;
    std::map<std::uint32_t, std::map<Hash, Said>> pending_;
};

}  // namespace zest

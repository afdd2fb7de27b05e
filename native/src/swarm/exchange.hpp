// Peer exchange: who knows an object is told where the others listen that know it too. Only between peers that have
// proved it to each other (Link::common), so that nobody learns who else is interested in what he cannot name.
// Used on the network thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "bucket.hpp"
#include "endpoint.hpp"
#include "infohash.hpp"

namespace zest {

class Peer;

class Exchange {
public:
    // One message per object and peer in this time, of at most wire::max_peers addresses.
    static constexpr std::int64_t pause_ms = 1000;
    // Who comes is told of who was there, at once. The others are told of him only after this time, should he not have
    // come to them by then: so the two do not dial each other at the same moment.
    static constexpr std::int64_t news_ms = 2000;
    // Addresses that one peer may tell us: at once, and a second.
    static constexpr double told_burst = 100;
    static constexpr double told_per_s = 100.0 / 60;

    using Peers = std::map<std::uint32_t, std::weak_ptr<Peer>>;

    void tick(Peers const &peers, std::int64_t now_ms);
    void gone(std::uint32_t peer);
    // How many of so many addresses that the peer tells are listened to.
    std::size_t admit(std::uint32_t peer, std::size_t count, std::int64_t now_ms);

private:
    // Those who know an object, in the order in which they came: each is told of the others up to where it is.
    struct Member {
        std::uint32_t peer;
        std::int64_t since_ms;
        std::size_t told = 0;  // of this list
    };
    struct Noted {
        std::size_t common = 0;
        std::vector<InfoHash> swarms;
        Bucket told{told_burst, told_per_s};
    };
    void note(Peer const &peer, std::int64_t now_ms);
    void tell(std::vector<Member> const &members, std::size_t at, InfoHash const &swarm, Peers const &peers,
              std::int64_t now_ms, std::size_t &told);

    std::map<InfoHash, std::vector<Member>> members_;
    std::map<std::uint32_t, Noted> noted_;
    std::int64_t last_ms_ = 0;
};

}  // namespace zest

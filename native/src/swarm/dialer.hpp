// Which of the addresses that were heard of are connected to, and when. No sockets and no clock: the times are given.
//
// What is heard may be a lie, and much of it: a tracker can name ten thousand strangers. So each swarm keeps for each
// way of hearing (a lane) a bounded number of addresses, the latest, and dials a bounded number of them at a time and a
// minute; so that what comes by one way leaves room for the others. An address that failed rests, longer each time,
// whatever is heard of it.
#pragma once

#include <functional>
#include <map>
#include <random>
#include <vector>

#include "bucket.hpp"
#include "endpoint.hpp"
#include "wire.hpp"

namespace zest {

class Dialer {
public:
    static constexpr std::size_t max_heard = 100;          // addresses of a lane
    static constexpr std::size_t max_flying = 12;          // dials of a lane at a time
    static constexpr std::size_t max_standing = 50;        // connections that a lane has made
    static constexpr std::size_t max_flying_all = 64;      // of all lanes; the last quarter is for what the LAN says
    static constexpr double lane_burst = 40;               // dials at once of a lane,
    static constexpr double lane_per_s = 40.0 / 60;        // and after that
    static constexpr double host_burst = 32;               // dials of a host, which may be somebody's victim,
    static constexpr double host_per_s = 0.5;              // and after that
    static constexpr int max_failures = 6;                 // in a row, then an address is forgotten
    static constexpr std::int64_t first_rest_ms = 15'000;  // after a failure; doubled each time
    static constexpr std::int64_t longest_rest_ms = 3'600'000;
    static constexpr std::int64_t redial_ms = 5'000;          // after a connection that was of use; up to twice that
    static constexpr std::int64_t settled_ms = 60'000;        // as which counts one that stood so long
    static constexpr std::int64_t twin_rest_ms = 300'000;     // an address of somebody who is connected already
    static constexpr std::int64_t fresh_rest_ms = 60'000;     // a new mention shortens a rest to this since the dial
    static constexpr std::int64_t fresh_lan_rest_ms = 5'000;  // by LSD: it has just come up

    struct Dial {
        InfoHash swarm;
        Endpoint endpoint;
        Source source;
    };

    void heard(InfoHash const &swarm, Endpoint const &endpoint, Source source, std::int64_t now_ms);
    // What to connect to now. Each of them ends in `ended`, perhaps after `ready`. `connected`: somebody there is
    // connected or being dialled, whoever has begun it.
    std::vector<Dial> due(std::int64_t now_ms, std::function<bool(Endpoint const &)> const &connected);
    // When `due` may have more, unless something is heard or ends before.
    std::int64_t due_ms() const noexcept { return due_ms_; }

    void ready(Endpoint const &endpoint, std::int64_t now_ms);
    enum class End { failed, twin, ourselves, left };
    void ended(Endpoint const &endpoint, End end, std::int64_t now_ms);
    // A connection that somebody else began is gone: the place is free.
    void vacant() noexcept;
    void forget(InfoHash const &swarm);

    std::size_t flying() const noexcept;

private:
    using LaneKey = std::pair<InfoHash, Source>;
    struct Lane {
        std::vector<Endpoint> heard;  // the latest last
        std::size_t flying = 0;
        std::size_t standing = 0;
        Bucket bucket{lane_burst, lane_per_s};
        std::int64_t due_ms = 0;
        bool unused() const noexcept { return heard.empty() && flying == 0 && standing == 0; }
    };
    struct Past {
        std::int64_t last_ms = 0;
        std::int64_t retry_ms = 0;
        int failures = 0;
        bool ourselves = false;
    };
    struct Running {
        LaneKey lane;
        std::int64_t ready_ms = 0;  // 0: not yet
    };

    std::size_t pick(LaneKey const &key, Lane &lane, std::int64_t now_ms,
                     std::function<bool(Endpoint const &)> const &connected, std::vector<Dial> &out);
    void tidy(std::int64_t now_ms);
    std::int64_t upto(std::int64_t most);

    std::map<LaneKey, Lane> lanes_;
    std::map<Endpoint, Past> past_;
    std::map<Endpoint, Running> running_;
    std::map<lt::address, Bucket> hosts_;
    std::size_t flying_ = 0;
    std::int64_t due_ms_ = std::numeric_limits<std::int64_t>::max();
    LaneKey last_{};
    std::minstd_rand random_{std::random_device{}()};
};

}  // namespace zest

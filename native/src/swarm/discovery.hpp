// How peers are found. File swarms meet by LSD, trackers and the DHT; xorb swarms in the DHT alone, for there are
// thousands of them and most stand for nothing that is not in a file swarm as well.
//
// The session announces to the DHT itself, without torrents and at a pace that the DHT bears: libtorrent would take a
// second for each. Nothing is started before the first swarm is joined. Used on the network thread only.
#pragma once

#include <array>
#include <deque>
#include <libtorrent/alert.hpp>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bucket.hpp"
#include "dialer.hpp"
#include "swarms.hpp"
#include "zest_swarm.h"

namespace zest {

struct DiscoverySettings {
    explicit DiscoverySettings(zest_session_config const &config);
    bool lsd;
    bool dht;
    bool dht_on_site;  // every node that it starts from is in a private network, or there is none
    void note(std::string const &tracker);
    bool tracker_on_machine;  // a tracker runs on this machine: it may see peers by their loopback addresses
    std::vector<std::string> trackers;
};

class Discovery {
public:
    Discovery(DiscoverySettings settings, Swarms &swarms) : settings_(std::move(settings)), swarms_(swarms) {}

    void start(std::uint16_t port);

    // Look for the peers of an object; and `announce` it: be found. Once more: changes `announce`.
    void join(InfoHash const &swarm, Kind kind, bool announce, std::int64_t now_ms);
    void leave(InfoHash const &swarm, bool in_use);
    bool joined(InfoHash const &swarm) const { return joined_.count(swarm) != 0; }

    // Somebody says that a peer of the swarm is there. `teller`: how near he is himself, for PEX.
    void heard(InfoHash const &swarm, Endpoint const &endpoint, Source source, Scope teller, std::int64_t now_ms);
    void on_alert(lt::alert const &alert, std::int64_t now_ms);
    void tick(std::int64_t now_ms);
    // When tick() has something to do.
    std::int64_t due_ms() const noexcept { return std::min(due_ms_, dialer.due_ms()); }

    std::uint32_t swarms() const { return static_cast<std::uint32_t>(joined_.size()); }
    std::uint32_t dht_nodes() const;
    void add_tracker(std::string const &url);
    std::vector<zest_tracker_info> trackers() const;

    Dialer dialer;

private:
    struct Joined {
        Kind kind;
        bool announce;
        std::int64_t due_ms;  // in the DHT
        unsigned lookups = 0;
    };
    struct Tracker {
        std::uint32_t state = ZEST_TRACKER_UNTRIED;
        std::uint32_t peers = 0;
        std::string message;
    };
    void wake_up();
    void dht_tick(std::int64_t now_ms);
    bool look_up(std::set<std::pair<std::int64_t, InfoHash>> &queue, std::int64_t now_ms);
    std::set<std::pair<std::int64_t, InfoHash>> &queue_of(Kind kind) { return kind == Kind::file ? files_ : xorbs_; }

    DiscoverySettings settings_;
    Swarms &swarms_;
    std::uint16_t port_ = 0;
    bool awake_ = false;
    std::map<InfoHash, Joined> joined_;
    std::deque<InfoHash> to_announce_;  // at the trackers and on the LAN
    Bucket announcements_{20, 50};
    std::set<std::pair<std::int64_t, InfoHash>> files_;  // what is due in the DHT, and when
    std::set<std::pair<std::int64_t, InfoHash>> xorbs_;
    // Few at once: in a network without delay all answers are there at the same time, and twenty lookups' do not fit
    // into the socket's receive buffer (one that is lost holds its lookup up for 15 s).
    Bucket lookups_{4, 20};
    std::map<lt::udp::endpoint, std::uint32_t> nodes_;  // of the DHT, by our own address
    std::int64_t dht_since_ms_ = 0;
    std::int64_t ask_nodes_ms_ = 0;
    std::map<std::string, Tracker> trackers_;
    std::int64_t due_ms_ = std::numeric_limits<std::int64_t>::max();
};

}  // namespace zest

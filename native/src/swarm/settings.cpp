#include "settings.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <libtorrent/alert.hpp>
#include <libtorrent/socket.hpp>
#include <stdexcept>
#include <system_error>

#include "endpoint.hpp"
#include "text.hpp"

namespace zest {

namespace {

// A socket that listens, or the errno. port 0: any, which is then filled in.
int listening(lt::address const &host, std::uint16_t &port, int &error) {
    int const fd = ::socket(host.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    error = errno;
    if (fd < 0) return -1;
    lt::tcp::endpoint at(host, port);
    int const on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (host.is_v6()) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    auto size = static_cast<socklen_t>(at.capacity());
    if (::bind(fd, at.data(), static_cast<socklen_t>(at.size())) == 0 && ::listen(fd, 1) == 0 &&
        ::getsockname(fd, at.data(), &size) == 0) {
        port = at.port();
        return fd;
    }
    error = errno;
    ::close(fd);
    return -1;
}

std::string port_list(std::uint32_t first, std::uint32_t last) {
    return std::to_string(first) + (last > first ? " to " + std::to_string(last) : "");
}

}  // namespace

std::vector<lt::address> listen_addresses(std::string const &host) {
    if (!host.empty()) {
        lt::error_code bad;
        auto const address = lt::make_address(host, bad);
        if (bad) throw std::runtime_error("cannot listen on " + host + ": not a numeric address");
        return {address};
    }
    std::vector<lt::address> out{lt::address_v4::any()};
    std::uint16_t port = 0;
    int error = 0;
    if (int const fd = listening(lt::address_v6::any(), port, error); fd >= 0) {
        ::close(fd);
        out.emplace_back(lt::address_v6::any());
    }
    return out;
}

std::uint16_t free_port(std::vector<lt::address> const &hosts, std::uint32_t first, std::uint32_t last) {
    int error = 0;
    lt::address failed = hosts.front();
    // Any port will do: that which is free for the first may be taken for the second.
    int attempts = first == 0 ? 20 : 1;
    for (auto wanted = first; wanted <= last; wanted += --attempts > 0 ? 0 : 1) {
        auto port = static_cast<std::uint16_t>(wanted);
        std::vector<int> held;
        bool free = true;
        for (auto const &host : hosts) {
            int const fd = listening(host, port, error);
            if (fd < 0) {
                free = false;
                failed = host;
                break;
            }
            held.push_back(fd);
        }
        for (int const fd : held) ::close(fd);
        if (free) return port;
        if (error != EADDRINUSE) break;
    }
    throw std::runtime_error("cannot listen on " + failed.to_string() + ", port " + port_list(first, last) + ": " +
                             std::generic_category().message(error));
}

std::string interfaces(std::vector<lt::address> const &hosts, std::uint16_t port) {
    std::string out;
    for (auto const &host : hosts) {
        auto const text = host.to_string();
        out += (out.empty() ? "" : ",") + (host.is_v6() ? "[" + text + "]" : text) + ":" + std::to_string(port);
    }
    return out;
}

bool dht_is_on_site(zest_session_config const &config) {
    auto const nodes = lines_of(config.dht_bootstrap);
    return !nodes.empty() && std::all_of(nodes.begin(), nodes.end(), [](std::string const &node) {
        lt::error_code name;
        auto const address = lt::make_address(host_of(node), name);
        return !name && scope_of(address) < Scope::world;
    });
}

namespace {

// Where and how peers are found, should that be begun (discovery.cpp).
void set_discovery(lt::settings_pack &pack, zest_session_config const &config) {
    using sp = lt::settings_pack;
    // Every tracker is told, whichever answers first: they are not copies of each other.
    pack.set_bool(sp::announce_to_all_tiers, true);
    pack.set_bool(sp::announce_to_all_trackers, true);
    pack.set_int(sp::tracker_completion_timeout, 15);
    pack.set_int(sp::tracker_receive_timeout, 10);
    // A tracker that is gone does not hold up the end of the program.
    pack.set_int(sp::stop_tracker_timeout, 1);

    // Not libtorrent's own: see zest_session_add_dht_node.
    pack.set_str(sp::dht_bootstrap_nodes, "");
    if (!config.dht) return;
    auto const nodes = lines_of(config.dht_bootstrap);
    std::string list;
    for (auto const &node : nodes) list += (list.empty() ? "" : ",") + node;
    if (!list.empty()) pack.set_str(sp::dht_bootstrap_nodes, list);
    // 20 lookups a second, each of some dozens of packets.
    pack.set_int(sp::dht_upload_rate_limit, 128'000);
    if (dht_is_on_site(config)) {
        // One node per network, no private addresses, ids that fit the address: what protects the DHT of the Internet
        // makes one on a machine or in a private network impossible, where all nodes share their network's prefix.
        pack.set_bool(sp::dht_restrict_routing_ips, false);
        pack.set_bool(sp::dht_restrict_search_ips, false);
        pack.set_bool(sp::dht_ignore_dark_internet, false);
        pack.set_bool(sp::dht_prefer_verified_node_ids, false);
        pack.set_bool(sp::dht_enforce_node_id, false);
        // A test's or a cluster's many nodes behind one address look like a flood.
        pack.set_int(sp::dht_block_ratelimit, 1000);
    }
}

}  // namespace

lt::settings_pack settings_for(zest_session_config const &config) {
    lt::settings_pack pack;
    using sp = lt::settings_pack;
    pack.set_str(sp::listen_interfaces, "");
    pack.set_int(sp::max_retry_port_bind, 0);
    pack.set_bool(sp::listen_system_port_fallback, false);
    pack.set_str(sp::user_agent, "zest_hf");
    pack.set_str(sp::peer_fingerprint, "-ZH0100-");
    pack.set_int(sp::alert_mask, lt::alert_category::status | lt::alert_category::error);

    // Nothing speaks to the outside unless it was asked to.
    pack.set_bool(sp::enable_dht, false);
    pack.set_bool(sp::enable_lsd, false);
    pack.set_bool(sp::enable_upnp, false);
    pack.set_bool(sp::enable_natpmp, false);
    set_discovery(pack, config);
    pack.set_bool(sp::enable_incoming_utp, false);
    pack.set_bool(sp::enable_outgoing_utp, false);
    pack.set_int(sp::in_enc_policy, sp::pe_enabled);
    pack.set_int(sp::out_enc_policy, sp::pe_disabled);

    // A peer is told by its node id; many of them may share an address (ranks of a job, containers, NAT).
    pack.set_bool(sp::allow_multiple_connections_per_ip, true);
    pack.set_int(sp::connections_limit, 4000);
    pack.set_int(sp::connection_speed, 500);
    pack.set_int(sp::listen_queue_size, 3000);
    pack.set_int(sp::torrent_connect_boost, 255);
    pack.set_int(sp::peer_turnover, 0);
    pack.set_bool(sp::close_redundant_connections, false);
    pack.set_int(sp::active_downloads, -1);
    pack.set_int(sp::active_seeds, -1);
    pack.set_int(sp::active_limit, -1);
    pack.set_int(sp::mixed_mode_algorithm, sp::prefer_tcp);
    // What libtorrent does in its tick is to hand out bandwidth. Dials do not wait for it (dial.hpp).
    pack.set_int(sp::tick_interval, 500);
    auto const connect_s = static_cast<int>((config.connect_timeout_ms + 999) / 1000);
    pack.set_int(sp::peer_connect_timeout, std::max(1, connect_s));
    pack.set_int(sp::handshake_timeout, std::max(1, connect_s));
    // As often as BEP 14 allows: parts of a network that become one find each other by nothing else.
    pack.set_int(sp::local_service_announce_interval, 60);
    pack.set_int(sp::min_reconnect_time, 1);
    pack.set_int(sp::max_failcount, 31);
    pack.set_int(sp::max_peer_recv_buffer_size, 4 * 1024 * 1024);
    return pack;
}

}  // namespace zest

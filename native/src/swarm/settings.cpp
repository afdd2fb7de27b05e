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

namespace zest {

std::uint16_t free_port(lt::address const &host, std::uint32_t first, std::uint32_t last) {
    int error = 0;
    for (auto port = first; port <= last; ++port) {
        int const fd = ::socket(host.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot open a socket");
        lt::tcp::endpoint at(host, static_cast<std::uint16_t>(port));
        int const on = 1;
        ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (host.is_v6()) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        auto size = static_cast<socklen_t>(at.capacity());
        bool const ok = ::bind(fd, at.data(), static_cast<socklen_t>(at.size())) == 0 && ::listen(fd, 1) == 0 &&
                        ::getsockname(fd, at.data(), &size) == 0;
        error = errno;
        ::close(fd);
        if (ok) return at.port();
        if (error != EADDRINUSE) break;
    }
    auto const ports = std::to_string(first) + (last > first ? " to " + std::to_string(last) : "");
    throw std::runtime_error("cannot listen on " + host.to_string() + ", port " + ports + ": " +
                             std::generic_category().message(error));
}

std::string bracketed(std::string const &host) {
    return host.find(':') != std::string::npos && host.front() != '[' ? "[" + host + "]" : host;
}

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
    pack.set_int(sp::tick_interval, static_cast<int>(tick_interval.count()));
    auto const connect_s = static_cast<int>((config.connect_timeout_ms + 999) / 1000);
    pack.set_int(sp::peer_connect_timeout, std::max(1, connect_s));
    pack.set_int(sp::handshake_timeout, std::max(1, connect_s));
    pack.set_int(sp::min_reconnect_time, 1);
    pack.set_int(sp::max_failcount, 31);
    pack.set_int(sp::max_peer_recv_buffer_size, 4 * 1024 * 1024);
    auto const limit = [](std::uint64_t value) { return static_cast<int>(std::min<std::uint64_t>(value, INT32_MAX)); };
    pack.set_int(sp::upload_rate_limit, limit(config.max_up_bytes_s));
    pack.set_int(sp::download_rate_limit, limit(config.max_down_bytes_s));
    return pack;
}

}  // namespace zest

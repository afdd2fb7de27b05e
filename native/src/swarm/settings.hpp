// What libtorrent is told before it starts, and the port that it is given.
#pragma once

#include <cstdint>
#include <libtorrent/address.hpp>
#include <libtorrent/settings_pack.hpp>
#include <string>
#include <vector>

#include "zest_swarm.h"

namespace zest {

lt::settings_pack settings_for(zest_session_config const &config);

// The addresses to listen on: "" is all of IPv4, and of IPv6 where the machine has it. Throws with one line.
std::vector<lt::address> listen_addresses(std::string const &host);

// A port that is free on all of them: libtorrent binds each interface on its own, and would use another port on
// each when it is taken on one of them, or when any will do. Throws with one line.
std::uint16_t free_port(std::vector<lt::address> const &hosts, std::uint32_t first, std::uint32_t last);

// As libtorrent wants them.
std::string interfaces(std::vector<lt::address> const &hosts, std::uint16_t port);

// Whether all nodes that the DHT starts from are on this machine or in a private network.
bool dht_is_on_site(zest_session_config const &config);

}  // namespace zest

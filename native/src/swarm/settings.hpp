// What libtorrent is told before it starts, and the port that it is given.
#pragma once

#include <chrono>
#include <cstdint>
#include <libtorrent/address.hpp>
#include <libtorrent/settings_pack.hpp>
#include <string>

#include "zest_swarm.h"

namespace zest {

constexpr std::chrono::milliseconds tick_interval{50};

lt::settings_pack settings_for(zest_session_config const &config);

// A port that is free on every interface: libtorrent binds each interface on its own, and would use another port on
// each when it is taken on one of them, or when any will do. Throws with one line.
std::uint16_t free_port(lt::address const &host, std::uint32_t first, std::uint32_t last);

// As in a list of interfaces or an address with a port.
std::string bracketed(std::string const &host);

}  // namespace zest

// Where a peer listens, as others tell it, and how far such a word is believed.
#pragma once

#include <cstdint>
#include <libtorrent/address.hpp>
#include <libtorrent/socket.hpp>

namespace zest {

using Endpoint = lt::tcp::endpoint;

// How a peer was found.
enum class Source : std::uint8_t { given = 1, incoming = 2, lsd = 3, tracker = 4, dht = 5, pex = 6 };

// From where an address can be reached: this machine, a private network, anywhere; or it is nobody's.
enum class Scope : std::uint8_t { machine, site, world, nowhere };

Scope scope_of(lt::address const &address);

// With IPv4 addresses as such, not mapped into IPv6.
Endpoint plain(Endpoint const &endpoint);

}  // namespace zest

// Connecting at once.
#pragma once

#include <libtorrent/session.hpp>
#include <libtorrent/socket.hpp>
#include <memory>

#include "infohash.hpp"

namespace zest {

using SessionImpl = std::weak_ptr<lt::aux::session_impl>;

// Have libtorrent connect to a peer of a swarm that it has. Its own way for that is its tick, once a second, by which
// time a download has stopped waiting for peers. On the network thread only.
void connect_now(SessionImpl const &session, lt::torrent_handle const &torrent, InfoHash const &swarm,
                 lt::tcp::endpoint const &peer);

}  // namespace zest

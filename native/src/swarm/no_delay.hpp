// Small messages that leave at once.
#pragma once

#include <libtorrent/peer_connection_handle.hpp>

namespace zest {

// Turns Nagle's algorithm off for an open connection, which libtorrent leaves on: a question behind a message that asks
// nothing would wait for the other end's delayed acknowledgement, 40 ms. Without effect on a connection that is not
// open.
void send_without_delay(lt::peer_connection_handle const &connection);

}  // namespace zest

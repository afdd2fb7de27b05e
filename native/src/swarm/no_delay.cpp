#include "no_delay.hpp"

#include <libtorrent/aux_/socket_type.hpp>
#include <libtorrent/peer_connection.hpp>

namespace zest {

void send_without_delay(lt::peer_connection_handle const &connection) {
    auto const native = connection.native_handle();
    if (!native) return;
    lt::error_code ignored;
    native->get_socket().set_option(lt::tcp::no_delay(true), ignored);
}

}  // namespace zest

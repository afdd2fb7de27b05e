#include "dial.hpp"

#include <libtorrent/torrent_handle.hpp>
#include <libtorrent/version.hpp>

#if LIBTORRENT_VERSION_NUM < 20100
#include <libtorrent/aux_/lsd.hpp>
#include <libtorrent/aux_/session_impl.hpp>
#endif

namespace zest {

void connect_now(SessionImpl const &session, lt::torrent_handle const &torrent, [[maybe_unused]] InfoHash const &swarm,
                 lt::tcp::endpoint const &peer) {
    auto const impl = session.lock();
    if (!impl) return;
#if LIBTORRENT_VERSION_NUM < 20100
    // What local service discovery does with a peer that it finds: the one way in that does not wait for the tick. It
    // is good for 255 peers of a swarm; later ones wait. Volatile, because the library exports virtual functions in its
    // tables only and the compiler must not look through the pointer.
    lt::aux::lsd_callback *volatile const finder = impl.get();
    finder->on_lsd_peer(peer, lt::sha1_hash(reinterpret_cast<char const *>(swarm.data())));
    (void)torrent;
#else
    torrent.connect_peer(peer);
#endif
}

}  // namespace zest

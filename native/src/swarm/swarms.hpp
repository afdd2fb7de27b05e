// The torrents that stand for swarms, and libtorrent's hooks on them: a swarm for every hash of ours that a peer names,
// a Peer for every connection. Used on the network thread only.
#pragma once

#include <libtorrent/extensions.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <map>
#include <memory>

#include "infohash.hpp"

namespace zest {

class Session;

class Swarms final : public lt::plugin {
public:
    explicit Swarms(Session &session) : session_(session) {}

    std::shared_ptr<lt::torrent_plugin> new_torrent(lt::torrent_handle const &torrent, lt::client_data_t) override;
    bool on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                            lt::add_torrent_params &params) override;

    static void fill(lt::add_torrent_params &params, InfoHash const &swarm);

private:
    class Swarm;
    Session &session_;
};

}  // namespace zest

#include "swarms.hpp"

#include <cstring>
#include <libtorrent/add_torrent_params.hpp>

#include "peer.hpp"
#include "session.hpp"

namespace zest {

class Swarms::Swarm final : public lt::torrent_plugin {
public:
    Swarm(Session &session, InfoHash const &name) : session_(session), name_(name) {}
    std::shared_ptr<lt::peer_plugin> new_connection(lt::peer_connection_handle const &connection) override {
        if (connection.type() != lt::connection_type::bittorrent) return nullptr;
        return session_.make_peer(connection, name_);
    }

private:
    Session &session_;
    InfoHash const name_;
};

std::shared_ptr<lt::torrent_plugin> Swarms::new_torrent(lt::torrent_handle const &torrent, lt::client_data_t) {
    auto const hashes = torrent.info_hashes();
    InfoHash name;
    std::memcpy(name.data(), hashes.v1.data(), name.size());
    return std::make_shared<Swarm>(session_, name);
}

bool Swarms::on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                                lt::add_torrent_params &params) {
    InfoHash wanted;
    std::memcpy(wanted.data(), info_hash.v1.data(), wanted.size());
    // A stranger who names nothing that we hold is turned away by libtorrent.
    if (!session_.store().knows_swarm(wanted)) return false;
    fill(params, wanted);
    return true;
}

void Swarms::fill(lt::add_torrent_params &params, InfoHash const &swarm) {
    params.info_hashes = lt::info_hash_t(lt::sha1_hash(reinterpret_cast<char const *>(swarm.data())));
    params.save_path = ".";
    params.flags = lt::torrent_flags::disable_dht | lt::torrent_flags::disable_lsd | lt::torrent_flags::disable_pex;
}

}  // namespace zest

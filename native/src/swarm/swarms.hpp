// The torrents that stand for swarms, and libtorrent's hooks on them. A torrent is loaded when somebody joins its
// swarm, dials in it, or a peer comes that names something of ours; when nobody needs it any more it is dropped.
//
// libtorrent never dials by itself here: its port filter is shut, so that whatever peers it finds are told to us and
// forgotten. Only while we dial it is open.
//
// Used on the network thread only.
#pragma once

#include <cstdint>
#include <libtorrent/extensions.hpp>
#include <libtorrent/session_handle.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dial.hpp"
#include "endpoint.hpp"
#include "infohash.hpp"

namespace zest {

class Session;

class Swarms final : public lt::plugin {
public:
    explicit Swarms(Session &session) : session_(session) {}

    // No dialling by libtorrent itself from now on.
    void start() { shut_ports(true); }
    // Of use on the network thread, which may outlast the session itself.
    lt::session_handle &session() noexcept { return handle_; }
    // Load the swarm's torrent unless it is.
    void load(InfoHash const &swarm, std::int64_t now_ms);
    void connect(InfoHash const &swarm, Endpoint const &peer, std::int64_t now_ms);

    // Have its peers looked for, and ourselves be found, at the trackers and, if `lsd`, on the LAN.
    void announce(InfoHash const &swarm, std::vector<std::string> const &trackers, bool lsd, std::int64_t now_ms);
    // One more tracker for a swarm that is announced already; false if it is not.
    bool add_tracker(InfoHash const &swarm, std::string const &url);
    // No more of that. The torrent goes, and the trackers are told so; or with the last connection of those that it
    // has.
    void silence(InfoHash const &swarm, bool in_use);
    // Drop what nobody has needed for a while. `in_use`: a connection is in this swarm.
    void sweep(std::map<InfoHash, std::size_t> const &in_use, std::int64_t now_ms);

    std::size_t size() const noexcept { return loaded_.size(); }

    // libtorrent's
    void added(lt::session_handle const &session) override { handle_ = session; }
    std::shared_ptr<lt::torrent_plugin> new_torrent(lt::torrent_handle const &torrent, lt::client_data_t) override;
    bool on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                            lt::add_torrent_params &params) override;

private:
    class Hooks;
    struct Loaded {
        lt::torrent_handle handle;
        std::int64_t used_ms = 0;
        bool announced = false;
    };
    void shut_ports(bool shut);
    void drop(std::map<InfoHash, Loaded>::iterator at);

    Session &session_;
    lt::session_handle handle_;
    std::map<InfoHash, Loaded> loaded_;
    bool dialling_ = false;  // what libtorrent is told now comes from us
};

}  // namespace zest

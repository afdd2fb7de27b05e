#include "swarms.hpp"

#include <cstring>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/announce_entry.hpp>
#include <libtorrent/ip_filter.hpp>
#include <libtorrent/peer_info.hpp>
#include <libtorrent/torrent_flags.hpp>

#include "peer.hpp"
#include "session.hpp"

namespace zest {
namespace {

// A torrent that nobody needs is kept so long: who was here may come again.
constexpr std::int64_t idle_ms = 60'000;

InfoHash name_of(lt::info_hash_t const &hashes) {
    InfoHash name;
    std::memcpy(name.data(), hashes.v1.data(), name.size());
    return name;
}

void fill(lt::add_torrent_params &params, InfoHash const &swarm) {
    params.info_hashes = lt::info_hash_t(lt::sha1_hash(reinterpret_cast<char const *>(swarm.data())));
    params.save_path = ".";
    // Not auto-managed and not paused: it is what its connections make of it. The session announces to the DHT itself.
    params.flags = lt::torrent_flags::disable_dht | lt::torrent_flags::disable_lsd | lt::torrent_flags::disable_pex;
}

}  // namespace

class Swarms::Hooks final : public lt::torrent_plugin {
public:
    Hooks(Swarms &swarms, InfoHash const &name) : swarms_(swarms), name_(name) {}

    std::shared_ptr<lt::peer_plugin> new_connection(lt::peer_connection_handle const &connection) override {
        if (connection.type() != lt::connection_type::bittorrent) return nullptr;
        return swarms_.session_.make_peer(connection, name_);
    }

    void on_add_peer(lt::tcp::endpoint const &peer, lt::peer_source_flags_t source, lt::add_peer_flags_t) override {
        if (swarms_.dialling_) return;
        if (source & lt::peer_info::tracker)
            swarms_.session_.heard_of(name_, peer, Source::tracker);
        else if (source & lt::peer_info::lsd)
            swarms_.session_.heard_of(name_, peer, Source::lsd);
    }

private:
    Swarms &swarms_;
    InfoHash const name_;
};

void Swarms::shut_ports(bool shut) {
    lt::port_filter filter;
    if (shut) filter.add_rule(0, 65535, lt::port_filter::blocked);
    handle_.set_port_filter(filter);
}

void Swarms::load(InfoHash const &swarm, std::int64_t now_ms) {
    auto const found = loaded_.find(swarm);
    if (found != loaded_.end()) {
        found->second.used_ms = now_ms;
        return;
    }
    lt::add_torrent_params params;
    fill(params, swarm);
    // new_torrent notes it.
    handle_.add_torrent(std::move(params));
    loaded_[swarm].used_ms = now_ms;
}

void Swarms::connect(InfoHash const &swarm, Endpoint const &peer, std::int64_t now_ms) {
    load(swarm, now_ms);
    dialling_ = true;
    shut_ports(false);
    connect_now(handle_.native_handle(), loaded_[swarm].handle, swarm, peer);
    shut_ports(true);
    dialling_ = false;
}

void Swarms::announce(InfoHash const &swarm, std::vector<std::string> const &trackers, bool lsd, std::int64_t now_ms) {
    load(swarm, now_ms);
    auto &loaded = loaded_[swarm];
    if (loaded.announced) return;
    loaded.announced = true;
    std::vector<lt::announce_entry> entries;
    for (auto const &url : trackers) entries.emplace_back(url);
    if (!entries.empty()) loaded.handle.replace_trackers(entries);
    if (lsd) {
        loaded.handle.unset_flags(lt::torrent_flags::disable_lsd);
        loaded.handle.force_lsd_announce();
    }
}

bool Swarms::add_tracker(InfoHash const &swarm, std::string const &url) {
    auto const found = loaded_.find(swarm);
    if (found == loaded_.end() || !found->second.announced) return false;
    found->second.handle.add_tracker(lt::announce_entry(url));
    return true;
}

void Swarms::silence(InfoHash const &swarm, bool in_use) {
    auto const found = loaded_.find(swarm);
    if (found == loaded_.end() || !found->second.announced) return;
    if (!in_use) return drop(found);
    auto &loaded = found->second;
    loaded.announced = false;
    loaded.handle.set_flags(lt::torrent_flags::disable_lsd);
    loaded.handle.replace_trackers({});
}

void Swarms::sweep(std::map<InfoHash, std::size_t> const &in_use, std::int64_t now_ms) {
    for (auto at = loaded_.begin(); at != loaded_.end();) {
        auto const here = at++;
        if (in_use.count(here->first))
            here->second.used_ms = now_ms;
        else if (!here->second.announced && now_ms - here->second.used_ms >= idle_ms)
            drop(here);
    }
}

void Swarms::drop(std::map<InfoHash, Loaded>::iterator at) {
    auto const handle = at->second.handle;
    loaded_.erase(at);
    // The trackers that it was announced to are told that we leave.
    handle_.remove_torrent(handle);
}

std::shared_ptr<lt::torrent_plugin> Swarms::new_torrent(lt::torrent_handle const &torrent, lt::client_data_t) {
    auto const name = name_of(torrent.info_hashes());
    loaded_[name] = {torrent, session_.now_ms(), false};
    return std::make_shared<Hooks>(*this, name);
}

bool Swarms::on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                                lt::add_torrent_params &params) {
    auto const wanted = name_of(info_hash);
    // A stranger who names nothing that we hold or look for is turned away by libtorrent.
    if (!session_.store().knows_swarm(wanted) && !session_.is_joined(wanted)) return false;
    fill(params, wanted);
    return true;
}

}  // namespace zest

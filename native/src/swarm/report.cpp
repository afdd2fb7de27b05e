// What the session tells of itself: peers, bans, shares, totals.
#include "peer.hpp"
#include "session.hpp"
#include "text.hpp"

namespace zest {
std::vector<zest_peer_info> Session::peers() {
    return ask<std::vector<zest_peer_info>>(
        [this] {
            std::vector<zest_peer_info> out;
            for (auto const &entry : peers_) {
                auto const peer = entry.second.lock();
                if (!peer) continue;
                zest_peer_info info{};
                info.peer = entry.first;
                info.speaks = peer->link.speaks();
                info.token = peer->link.token();
                info.bytes_down = peer->requester.bytes_down();
                info.bytes_up = peer->responder->bytes_up();
                info.requests_out = peer->requester.open();
                info.requests_in = peer->responder->open();
                info.outgoing = peer->link.outgoing();
                info.ready = peer->link.ready;
                info.source = static_cast<std::uint8_t>(peer->source);
                std::copy(peer->link.node_id.begin(), peer->link.node_id.end(), info.node_id);
                copy_text(info.address, sizeof info.address, peer->link.address());
                copy_text(info.client, sizeof info.client, peer->link.client);
                out.push_back(info);
            }
            return out;
        },
        {});
}

std::vector<zest_ban_info> Session::bans() {
    return ask<std::vector<zest_ban_info>>(
        [this] {
            std::vector<zest_ban_info> out;
            for (auto const &ban : bans_.all()) {
                zest_ban_info info{};
                std::copy(ban.peer.node_id.begin(), ban.peer.node_id.end(), info.node_id);
                copy_text(info.address, sizeof info.address, ban.peer.address);
                copy_text(info.reason, sizeof info.reason, ban.reason);
                out.push_back(info);
            }
            return out;
        },
        {});
}

std::vector<zest_share_info> Session::shares() {
    return ask<std::vector<zest_share_info>>(
        [this] {
            std::map<Hash, zest_share_info> by_file;
            for (auto const &[file, bytes] : gone_served_) by_file[file].bytes_up = bytes;
            for (auto const &entry : peers_)
                if (auto const peer = entry.second.lock())
                    for (auto const &[file, bytes] : peer->responder->served()) {
                        by_file[file].bytes_up += bytes;
                        by_file[file].peers += 1;
                    }
            std::vector<zest_share_info> out;
            for (auto &[file, info] : by_file) {
                std::copy(file.begin(), file.end(), info.file_hash);
                out.push_back(info);
            }
            return out;
        },
        {});
}

zest_session_stats Session::stats() {
    return ask<zest_session_stats>(
        [this] {
            zest_session_stats out{};
            out.bytes_up = gone_bytes_up_;
            out.bytes_down = gone_bytes_down_;
            out.chunks_wrong = gone_chunks_wrong_;
            for (auto const &entry : peers_) {
                auto const peer = entry.second.lock();
                if (!peer) continue;
                out.bytes_up += peer->responder->bytes_up();
                out.bytes_down += peer->requester.bytes_down();
                out.chunks_wrong += peer->requester.chunks_wrong();
                out.peers_ready += peer->link.ready;
            }
            out.files_shared = store_.files();
            out.xorbs_shared = store_.xorbs();
            out.bans = static_cast<std::uint32_t>(bans_.all().size());
            out.dht_nodes = discovery_.dht_nodes();
            out.swarms_joined = discovery_.swarms();
            out.swarms_loaded = static_cast<std::uint32_t>(swarms_->size());
            out.dials_open = static_cast<std::uint32_t>(discovery_.dialer.flying());
            return out;
        },
        {});
}

std::vector<zest_tracker_info> Session::trackers() {
    return ask<std::vector<zest_tracker_info>>([this] { return discovery_.trackers(); }, {});
}

}  // namespace zest

#include "exchange.hpp"

#include <algorithm>

#include "peer.hpp"

namespace zest {
namespace {

std::shared_ptr<Peer> ready_peer(Exchange::Peers const &peers, std::uint32_t number) {
    auto const found = peers.find(number);
    auto peer = found == peers.end() ? nullptr : found->second.lock();
    return peer && peer->link.ready && !peer->link.gone() ? peer : nullptr;
}

wire::PeerAddress on_the_wire(Endpoint const &endpoint) {
    auto const &address = endpoint.address();
    auto const v6 = address.is_v6() ? address.to_v6()
                                    : boost::asio::ip::make_address_v6(boost::asio::ip::v4_mapped, address.to_v4());
    return {v6.to_bytes(), endpoint.port()};
}

// To whom an address can be of use: nobody is told what lies in a network that he is not in.
bool can_reach(Peer const &peer, Endpoint const &endpoint) {
    auto const &address = endpoint.address();
    // Of use only with the number of an interface, which is each machine's own.
    if (address.is_v6() && address.to_v6().is_link_local()) return false;
    return scope_of(address) >= scope_of(peer.link.remote().address()) && scope_of(address) != Scope::nowhere;
}

}  // namespace

void Exchange::tick(Peers const &peers, std::int64_t now_ms) {
    if (now_ms - last_ms_ < pause_ms) return;
    last_ms_ = now_ms;
    for (auto const &entry : peers)
        if (auto const peer = ready_peer(peers, entry.first)) note(*peer, now_ms);
    for (auto &[swarm, members] : members_)
        for (std::size_t at = 0; at < members.size(); ++at)
            if (members[at].told < members.size()) tell(members, at, swarm, peers, now_ms, members[at].told);
}

// Which objects it has proved to know since the last time.
void Exchange::note(Peer const &peer, std::int64_t now_ms) {
    auto const &common = peer.link.common();
    if (!peer.link.zest_id || common.empty()) return;
    auto &noted = noted_[peer.link.number()];
    if (noted.common == common.size()) return;
    noted.common = common.size();
    for (auto const &swarm : common) {
        auto const at = std::lower_bound(noted.swarms.begin(), noted.swarms.end(), swarm);
        if (at != noted.swarms.end() && *at == swarm) continue;
        noted.swarms.insert(at, swarm);
        members_[swarm].push_back({peer.link.number(), now_ms});
    }
}

// `told`: of the member at `at`.
void Exchange::tell(std::vector<Member> const &members, std::size_t at, InfoHash const &swarm, Peers const &peers,
                    std::int64_t now_ms, std::size_t &told) {
    auto const peer = ready_peer(peers, members[at].peer);
    if (!peer) return;
    std::vector<wire::PeerAddress> news;
    for (; told < members.size() && news.size() < wire::max_peers; ++told) {
        auto const &member = members[told];
        if (told > at && now_ms - member.since_ms < news_ms) break;
        auto const other = ready_peer(peers, member.peer);
        if (!other || other == peer || !other->listens || other->listens == peer->listens) continue;
        if (can_reach(*peer, *other->listens)) news.push_back(on_the_wire(*other->listens));
    }
    if (!news.empty()) peer->link.send_zest(wire::peers(swarm, news));
}

void Exchange::gone(std::uint32_t peer) {
    auto const noted = noted_.find(peer);
    if (noted == noted_.end()) return;
    for (auto const &swarm : noted->second.swarms) {
        auto const found = members_.find(swarm);
        auto &members = found->second;
        auto const at =
            std::find_if(members.begin(), members.end(), [peer](Member const &member) { return member.peer == peer; });
        auto const place = static_cast<std::size_t>(at - members.begin());
        members.erase(at);
        for (auto &member : members) member.told -= member.told > place;
        if (members.empty()) members_.erase(found);
    }
    noted_.erase(noted);
}

std::size_t Exchange::admit(std::uint32_t peer, std::size_t count, std::int64_t now_ms) {
    auto &bucket = noted_[peer].told;
    std::size_t admitted = 0;
    while (admitted < count && bucket.take(now_ms)) ++admitted;
    return admitted;
}

}  // namespace zest

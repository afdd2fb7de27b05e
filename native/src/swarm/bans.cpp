#include "bans.hpp"

#include <algorithm>

#include "peer.hpp"

namespace zest {
namespace {

constexpr std::size_t max_bans = 4096;

}  // namespace

Identity identity_of(Peer const &peer) {
    return {peer.link.node_id, peer.link.host(), peer.link.address(), peer.link.outgoing(), peer.link.token()};
}

bool is_named(std::array<std::uint8_t, 20> const &node_id) { return node_id != std::array<std::uint8_t, 20>{}; }

// A node id is a name that anybody can give himself: together with the host it tells one program from its neighbours,
// alone it would let a stranger have somebody else banned.
bool Bans::has(Identity const &who) const {
    if (has_host(who.host)) return true;
    return std::any_of(bans_.begin(), bans_.end(), [&](Ban const &ban) {
        auto const &bad = ban.peer;
        if (who.outgoing && bad.outgoing && bad.address == who.address) return true;
        if (is_named(bad.node_id) || is_named(who.node_id)) return bad.node_id == who.node_id && bad.host == who.host;
        return !who.outgoing && !bad.outgoing && bad.host == who.host;
    });
}

bool Bans::has_host(std::string const &host) const {
    auto const found = names_.find(host);
    return found != names_.end() && found->second.size() >= max_names_per_host;
}

void Bans::add(Identity who, std::string const &reason) {
    if (bans_.size() >= max_bans) return;
    if (is_named(who.node_id)) {
        auto &names = names_[who.host];
        if (std::find(names.begin(), names.end(), who.node_id) == names.end()) names.push_back(who.node_id);
    }
    bans_.push_back({std::move(who), reason});
}

}  // namespace zest

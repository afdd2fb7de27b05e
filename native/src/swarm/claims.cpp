#include "claims.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "peer.hpp"

namespace zest {
namespace {

bool only_progress_differs(std::vector<wire::Claim> const &a, std::vector<wire::Claim> const &b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](wire::Claim x, wire::Claim const &y) {
        x.progress = y.progress;
        return x == y;
    });
}

}  // namespace

void ClaimsTold::say(InfoHash const &swarm, bool downloading, std::vector<wire::Claim> claims, Peers const &peers) {
    auto found = files_.find(swarm);
    if (found == files_.end()) {
        if (!downloading) return;
        found = files_.emplace(swarm, File{}).first;
        for (auto const &entry : peers)
            if (auto const peer = entry.second.lock(); peer && peer->link.common().count(swarm))
                found->second.told[entry.first];
    }
    auto &file = found->second;
    if (file.downloading == downloading && file.claims == claims) return;
    ++file.version;
    if (file.downloading != downloading || !only_progress_differs(file.claims, claims)) ++file.change;
    file.downloading = downloading;
    file.claims = std::move(claims);
    due_ms_ = 0;
}

void ClaimsTold::proved(Peer const &peer, InfoHash const &swarm) {
    auto const found = files_.find(swarm);
    if (found == files_.end()) return;
    auto &told = found->second.told[peer.link.number()];
    told.version = told.change = 0;
    due_ms_ = 0;
}

void ClaimsTold::gone(std::uint32_t peer) {
    for (auto &entry : files_) entry.second.told.erase(peer);
}

void ClaimsTold::tick(Peers const &peers, std::int64_t now_ms) {
    if (now_ms < due_ms_) return;
    due_ms_ = std::numeric_limits<std::int64_t>::max();
    for (auto at = files_.begin(); at != files_.end();) {
        auto const here = at++;
        auto &file = here->second;
        tick(here->first, file, peers, now_ms);
        // Who comes later need not be told that something has ended.
        bool const ended = !file.downloading && std::none_of(file.told.begin(), file.told.end(),
                                                             [](auto const &entry) { return entry.second.knows; });
        if (ended) files_.erase(here);
    }
}

void ClaimsTold::tick(InfoHash const &swarm, File &file, Peers const &peers, std::int64_t now_ms) {
    std::vector<std::uint8_t> message;
    for (auto &[number, told] : file.told) {
        if (told.version == file.version || (!file.downloading && !told.knows)) continue;
        auto const due = told.sent_ms + (told.change == file.change ? progress_pause_ms : pause_ms);
        if (now_ms < due) {
            due_ms_ = std::min(due_ms_, due);
            continue;
        }
        auto const entry = peers.find(number);
        auto const peer = entry == peers.end() ? nullptr : entry->second.lock();
        if (!peer) continue;
        if (!peer->responder->takes_updates()) {
            due_ms_ = std::min(due_ms_, now_ms + pause_ms);
            continue;
        }
        if (message.empty()) message = wire::claims(swarm, file.downloading, file.claims);
        told.version = file.version;
        told.change = file.change;
        told.sent_ms = now_ms;
        told.knows = file.downloading;
        peer->responder->send_update(message);
    }
}

void ClaimsHeard::tell(Said &said, std::int64_t now_ms) {
    // An event costs the program more than a message costs the peer.
    said.held_back = !events_.waits(*said.latest) && !said.pace.take(now_ms);
    if (!said.held_back) events_.push_latest(said.event, said.latest, std::move(said.payload));
}

void ClaimsHeard::tick(std::int64_t now_ms) {
    for (auto &[peer, files] : pending_)
        for (auto &[file, said] : files)
            if (said.held_back) tell(said, now_ms);
}

void ClaimsHeard::heard(std::uint32_t peer, Hash const &file, wire::Claims const &claims, std::int64_t now_ms) {
    auto &pending = pending_[peer];
    auto at = pending.find(file);
    if (at == pending.end()) {
        if (pending.size() >= max_files)
            for (auto old = pending.begin(); old != pending.end();)
                // What was told long ago is of no use any more; its pace must not be forgotten before.
                old->second.held_back || events_.waits(*old->second.latest) || !old->second.pace.full(now_ms)
                    ? ++old
                    : old = pending.erase(old);
        if (pending.size() >= max_files) return;
        at = pending.try_emplace(file).first;
    }
    auto &said = at->second;
    auto &event = said.event;
    event = {};
    event.type = ZEST_EVENT_CLAIMS;
    event.peer = peer;
    event.status = claims.downloading;
    event.count = static_cast<std::uint32_t>(claims.claims.size());
    std::vector<std::uint8_t> payload(file.size() + sizeof(zest_claim) * claims.claims.size());
    auto *out = std::copy(file.begin(), file.end(), payload.data());
    for (auto const &claim : claims.claims) {
        zest_claim const one{claim.chunks.first, claim.chunks.end, static_cast<std::uint16_t>(claim.state),
                             claim.progress};
        std::memcpy(out, &one, sizeof one);
        out += sizeof one;
    }
    said.payload = std::move(payload);
    tell(said, now_ms);
}

}  // namespace zest

#include "dialer.hpp"

#include <algorithm>

namespace zest {
namespace {

constexpr std::size_t max_past = 8192;
constexpr auto never = std::numeric_limits<std::int64_t>::max();

}  // namespace

// Those who lost a peer together do not come back together.
std::int64_t Dialer::upto(std::int64_t most) { return std::uniform_int_distribution<std::int64_t>(0, most)(random_); }

void Dialer::heard(InfoHash const &swarm, Endpoint const &endpoint, Source source, std::int64_t now_ms) {
    auto &lane = lanes_[{swarm, source}];
    auto const known = std::find(lane.heard.begin(), lane.heard.end(), endpoint);
    if (known != lane.heard.end()) {
        std::rotate(known, known + 1, lane.heard.end());
    } else {
        if (lane.heard.size() >= max_heard) lane.heard.erase(lane.heard.begin());
        lane.heard.push_back(endpoint);
    }
    if (auto const found = past_.find(endpoint); found != past_.end()) {
        auto &past = found->second;
        auto const rest = source == Source::lsd ? fresh_lan_rest_ms : fresh_rest_ms;
        if (past.failures < max_failures)
            past.retry_ms = std::min(past.retry_ms, past.last_ms + rest);
        else if (past.retry_ms <= now_ms)
            past.failures = max_failures - 1;  // given up long ago, and somebody says that it is there: once more
    }
    lane.due_ms = std::min(lane.due_ms, now_ms);
    due_ms_ = std::min(due_ms_, now_ms);
}

std::vector<Dialer::Dial> Dialer::due(std::int64_t now_ms, std::function<bool(Endpoint const &)> const &connected) {
    std::vector<Dial> out;
    if (now_ms < due_ms_) return out;
    tidy(now_ms);
    // One of each lane in turn, going on where the last round has ended.
    for (bool more = true; more && flying_ < max_flying_all;) {
        more = false;
        auto at = lanes_.upper_bound(last_);
        for (std::size_t left = lanes_.size(); left-- && flying_ < max_flying_all; ++at) {
            if (at == lanes_.end()) at = lanes_.begin();
            if (at->second.due_ms > now_ms) continue;
            if (pick(at->first, at->second, now_ms, connected, out)) {
                more = true;
                last_ = at->first;
            }
        }
    }
    due_ms_ = never;
    for (auto const &entry : lanes_) due_ms_ = std::min(due_ms_, entry.second.due_ms);
    // Lanes that only wait for a free place are woken when one ends.
    if (flying_ >= max_flying_all) due_ms_ = never;
    return out;
}

// 0: nothing of this lane now, and its due_ms says when.
std::size_t Dialer::pick(LaneKey const &key, Lane &lane, std::int64_t now_ms,
                         std::function<bool(Endpoint const &)> const &connected, std::vector<Dial> &out) {
    lane.due_ms = never;
    if (lane.flying >= max_flying || lane.flying + lane.standing >= max_standing) return 0;
    if (key.second != Source::lsd && flying_ >= max_flying_all / 4 * 3) return 0;
    if (!lane.bucket.ready(now_ms)) {
        lane.due_ms = lane.bucket.ready_ms(now_ms);
        return 0;
    }
    for (auto at = lane.heard.rbegin(); at != lane.heard.rend(); ++at) {
        auto const endpoint = *at;
        if (running_.count(endpoint) || connected(endpoint)) continue;
        auto const past = past_.find(endpoint);
        if (past != past_.end()) {
            if (past->second.ourselves || past->second.failures >= max_failures) continue;
            if (past->second.retry_ms > now_ms) {
                lane.due_ms = std::min(lane.due_ms, past->second.retry_ms);
                continue;
            }
        }
        auto &host = hosts_.try_emplace(endpoint.address(), host_burst, host_per_s).first->second;
        if (!host.take(now_ms)) {
            lane.due_ms = std::min(lane.due_ms, host.ready_ms(now_ms));
            continue;
        }
        lane.bucket.take(now_ms);
        lane.due_ms = now_ms;
        ++lane.flying;
        ++flying_;
        running_[endpoint] = {key, 0};
        past_[endpoint].last_ms = now_ms;
        out.push_back({key.first, endpoint, key.second});
        return 1;
    }
    return 0;
}

void Dialer::ready(Endpoint const &endpoint, std::int64_t now_ms) {
    auto const at = running_.find(endpoint);
    if (at == running_.end() || at->second.ready_ms) return;
    at->second.ready_ms = std::max<std::int64_t>(1, now_ms);
    --flying_;
    auto &lane = lanes_.find(at->second.lane)->second;
    --lane.flying;
    ++lane.standing;
    vacant();
}

void Dialer::ended(Endpoint const &endpoint, End end, std::int64_t now_ms) {
    auto const at = running_.find(endpoint);
    if (at == running_.end()) return;
    auto const was = at->second;
    running_.erase(at);
    auto const lane = lanes_.find(was.lane);
    --(was.ready_ms ? lane->second.standing : lane->second.flying);
    if (lane->second.unused()) lanes_.erase(lane);
    if (!was.ready_ms) --flying_;
    auto &past = past_[endpoint];
    if (end == End::left && was.ready_ms && now_ms - was.ready_ms >= settled_ms) {
        past.failures = 0;
        past.retry_ms = now_ms + redial_ms + upto(redial_ms);
    } else if (end == End::twin) {
        past.retry_ms = now_ms + twin_rest_ms + upto(twin_rest_ms);
    } else {
        past.ourselves = end == End::ourselves;
        auto const rest = std::min(first_rest_ms << std::min(past.failures, 20), longest_rest_ms);
        past.retry_ms = now_ms + rest + upto(rest / 2);
        ++past.failures;
    }
    vacant();
}

void Dialer::vacant() noexcept {
    for (auto &entry : lanes_) entry.second.due_ms = 0;
    due_ms_ = 0;
}

void Dialer::forget(InfoHash const &swarm) {
    auto at = lanes_.lower_bound({swarm, Source{}});
    while (at != lanes_.end() && at->first.first == swarm) {
        at->second.heard.clear();
        at = at->second.unused() ? lanes_.erase(at) : std::next(at);
    }
}

std::size_t Dialer::flying() const noexcept { return flying_; }

// Nothing is kept for ever.
void Dialer::tidy(std::int64_t now_ms) {
    if (past_.size() > max_past) {
        for (auto at = past_.begin(); at != past_.end();)
            at = running_.count(at->first) || (at->second.retry_ms > now_ms && past_.size() < 2 * max_past)
                     ? std::next(at)
                     : past_.erase(at);
    }
    if (hosts_.size() > max_past)
        for (auto at = hosts_.begin(); at != hosts_.end();)
            at = at->second.full(now_ms) ? hosts_.erase(at) : std::next(at);
}

}  // namespace zest

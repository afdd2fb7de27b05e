#include "bandwidth_scheduler.hpp"

#include <algorithm>
#include <cmath>

namespace zest {
namespace {

// The bucket's depth and a batch, as time at the cap's rate. Together they bound by how much any stretch of time can
// exceed the cap; shorter, and wake-ups that come late would lose what is allowed.
constexpr double bucket_s = 0.05;
constexpr double batch_s = 0.05;
constexpr double us_per_s = 1e6;
// A batch is one chunk at least, whatever this says.
constexpr double smallest_batch = 16 * 1024;

}  // namespace

void BandwidthScheduler::set_cap(std::uint64_t bytes_s, Time now) {
    if (bytes_s == cap_bytes_s_) return;
    cap_bytes_s_ = bytes_s;
    auto const rate = static_cast<double>(bytes_s);
    // What was overdrawn at another rate is forgiven.
    tokens_ = 0;
    filled_ = now;
    batch_bytes_ = bytes_s == 0
                       ? largest_batch
                       : static_cast<std::size_t>(std::clamp(rate * batch_s, smallest_batch, double{largest_batch}));
}

void BandwidthScheduler::refill(Time now) {
    auto const rate = static_cast<double>(cap_bytes_s_);
    tokens_ = std::min(tokens_ + rate * static_cast<double>(now - filled_) / us_per_s, rate * bucket_s);
    filled_ = now;
}

void BandwidthScheduler::wait(Connection connection, std::string const &name, double weight) {
    auto &host = by_host_[name];
    if (host_of_.emplace(connection, name).second) ++host.known;
    host.connections.wait(connection, weight);
    host.weights[connection] = weight;
    settle(name, host);
}

// A host waits while one of its connections does, and counts as much as the best of those.
void BandwidthScheduler::settle(std::string const &name, Host const &host) {
    double weight = 0;
    for (auto const &[connection, its] : host.weights) weight = std::max(weight, its);
    if (weight > 0)
        hosts_.wait(name, weight);
    else
        hosts_.leave(name);
}

std::optional<BandwidthScheduler::Connection> BandwidthScheduler::next(Time now) {
    if (under_way_ >= most_at_once || hosts_.empty()) return std::nullopt;
    if (cap_bytes_s_ != 0) {
        refill(now);
        if (tokens_ < 0) return std::nullopt;
    }
    auto const name = hosts_.front();
    auto &host = by_host_.at(name);
    hosts_.pop();
    auto const connection = host.connections.front();
    host.connections.pop();
    host.weights.erase(connection);
    ++under_way_;
    return connection;
}

void BandwidthScheduler::used(Connection connection, std::size_t bytes) {
    auto const name = host_of_.find(connection);
    if (name == host_of_.end()) return;
    auto &host = by_host_.at(name->second);
    host.connections.use(connection, static_cast<double>(bytes));
    hosts_.use(name->second, static_cast<double>(bytes));
    settle(name->second, host);
    if (cap_bytes_s_ != 0) tokens_ -= static_cast<double>(bytes);
}

void BandwidthScheduler::charge(Connection connection, std::size_t bytes, Time now) {
    if (cap_bytes_s_ == 0) return;
    refill(now);
    used(connection, bytes);
}

void BandwidthScheduler::forget(Connection connection) {
    auto const name = host_of_.find(connection);
    if (name == host_of_.end()) return;
    auto const at = by_host_.find(name->second);
    auto &host = at->second;
    host.connections.forget(connection);
    host.weights.erase(connection);
    if (--host.known == 0) {
        hosts_.forget(name->second);
        by_host_.erase(at);
    } else {
        settle(name->second, host);
    }
    host_of_.erase(name);
}

std::optional<BandwidthScheduler::Time> BandwidthScheduler::wake_at(Time now) {
    if (cap_bytes_s_ == 0 || hosts_.empty() || under_way_ >= most_at_once) return std::nullopt;
    refill(now);
    if (tokens_ >= 0) return now;
    return now + static_cast<Time>(std::ceil(-tokens_ * us_per_s / static_cast<double>(cap_bytes_s_)));
}

}  // namespace zest

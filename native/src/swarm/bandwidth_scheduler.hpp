// Whose turn it is when not all can be served at once: fair shares, and a cap.
//
// Start-time fair queueing (Goyal, Vin, Cheng 1996) on two levels: hosts share what there is by weight, and the
// connections of a host share its part, so that opening more of them gains nothing. A share that is not used is
// everybody's: who was idle gets no more later. The cap is a bucket of tokens that may be overdrawn by one batch.
//
// It knows neither sockets nor clocks: times are passed in, in microseconds, and never run backwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace zest {

// Flows that share something: whose turn it is, by what each has used.
template <typename Key>
class FairQueue {
public:
    void wait(Key const &key, double weight) {
        auto &flow = flows_[key];
        flow.weight = weight;
        if (flow.waiting) return;
        flow.waiting = true;
        flow.start = flow.finish > now_ ? flow.finish : now_;
        turns_.emplace(flow.start, key);
    }
    bool empty() const noexcept { return turns_.empty(); }
    Key const &front() const { return turns_.begin()->second; }
    // The front one has its turn: it waits no longer.
    void pop() {
        auto &flow = flows_.at(front());
        now_ = flow.start;
        flow.waiting = false;
        flow.finish = flow.start;
        turns_.erase(turns_.begin());
    }
    void use(Key const &key, double amount) {
        auto const at = flows_.find(key);
        if (at == flows_.end()) return;
        auto &flow = at->second;
        auto const more = amount / flow.weight;
        flow.finish = (flow.finish > now_ ? flow.finish : now_) + more;
        if (!flow.waiting) return;
        turns_.erase({flow.start, key});
        flow.start += more;
        turns_.emplace(flow.start, key);
    }
    // It does not want its turn any more.
    void leave(Key const &key) {
        auto const at = flows_.find(key);
        if (at == flows_.end() || !at->second.waiting) return;
        at->second.waiting = false;
        turns_.erase({at->second.start, key});
    }
    void forget(Key const &key) {
        auto const at = flows_.find(key);
        if (at == flows_.end()) return;
        if (at->second.waiting) turns_.erase({at->second.start, key});
        flows_.erase(at);
    }

private:
    struct Flow {
        double weight = 1;
        double start = 0;   // of its turn, while it waits
        double finish = 0;  // where what it has used ends
        bool waiting = false;
    };
    double now_ = 0;  // the start of the latest turn
    std::map<Key, Flow> flows_;
    std::set<std::pair<double, Key>> turns_;  // by start
};

class BandwidthScheduler {
public:
    using Connection = std::uint32_t;
    using Time = std::int64_t;

    // What is taken in one go: long enough that the hop to another thread costs nothing, short enough for many peers.
    static constexpr std::size_t largest_batch = 512 * 1024;
    // Batches under way at once; enough to keep the readers busy. What waits beyond waits here, where turns are fair.
    static constexpr std::uint32_t most_at_once = 4;
    // The weight of somebody who gives, against 1 of who only takes.
    static constexpr double giver_weight = 4;

    // 0: no cap.
    void set_cap(std::uint64_t bytes_s, Time now);
    std::uint64_t cap_bytes_s() const noexcept { return cap_bytes_s_; }
    // How many bytes to take at once: a cap is kept in small steps.
    std::size_t batch_bytes() const noexcept { return batch_bytes_; }

    // The connection wants a turn. Again while it waits: only the weight changes.
    void wait(Connection connection, std::string const &host, double weight);
    // Whose turn it is; nothing when nobody waits, too much is under way, or the cap says so. After each, used() with
    // what came of it (0: nothing after all), and finished() when that is not under way any more.
    std::optional<Connection> next(Time now);
    void used(Connection connection, std::size_t bytes);
    void finished() noexcept { --under_way_; }
    // Bytes out of turn.
    void charge(Connection connection, std::size_t bytes, Time now);
    void forget(Connection connection);

    // When next() will have something, if only the cap is in the way.
    std::optional<Time> wake_at(Time now);

private:
    struct Host {
        FairQueue<Connection> connections;
        std::map<Connection, double> weights;  // of those that wait
        std::size_t known = 0;
    };
    void settle(std::string const &name, Host const &host);
    void refill(Time now);

    FairQueue<std::string> hosts_;
    std::map<std::string, Host> by_host_;
    std::map<Connection, std::string> host_of_;
    std::uint32_t under_way_ = 0;

    std::uint64_t cap_bytes_s_ = 0;
    std::size_t batch_bytes_ = largest_batch;
    double tokens_ = 0;  // bytes
    Time filled_ = 0;
};

}  // namespace zest

#include "bandwidth_turns.hpp"

#include <chrono>
#include <new>
#include <utility>

namespace zest {
namespace {

BandwidthScheduler::Time now_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace

void BandwidthTurns::ask(std::uint32_t connection, std::string const &host, bool gives, TakeTurn take) {
    waiting_[connection] = std::move(take);
    scheduler_.wait(connection, host, gives ? BandwidthScheduler::giver_weight : 1);
    give();
}

void BandwidthTurns::finished() {
    scheduler_.finished();
    give();
}

void BandwidthTurns::charge(std::uint32_t connection, std::size_t bytes) {
    scheduler_.charge(connection, bytes, now_us());
}

void BandwidthTurns::forget(std::uint32_t connection) {
    waiting_.erase(connection);
    scheduler_.forget(connection);
}

void BandwidthTurns::set_cap(std::uint64_t bytes_s) {
    scheduler_.set_cap(bytes_s, now_us());
    give();
}

void BandwidthTurns::stop() {
    stopped_ = true;
    timer_.cancel();
}

void BandwidthTurns::give() {
    // Who takes a turn may ask for the next at once, or end his connection.
    if (giving_ || stopped_) return;
    giving_ = true;
    while (auto const connection = scheduler_.next(now_us())) {
        auto const take = std::move(waiting_.extract(*connection).mapped());
        std::size_t bytes = 0;
        try {
            bytes = take();
        } catch (std::bad_alloc const &) {
            // Its peer waits in vain and gives up; the others go on.
        }
        scheduler_.used(*connection, bytes);
        if (bytes == 0) scheduler_.finished();
    }
    giving_ = false;
    auto const now = now_us();
    if (auto const at = scheduler_.wake_at(now)) {
        timer_.expires_after(std::chrono::microseconds(*at - now));
        timer_.async_wait([this](boost::system::error_code const &error) {
            if (!error) give();
        });
    }
}

}  // namespace zest

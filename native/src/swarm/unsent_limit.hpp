// How much may wait to be sent to one peer: what its line takes in a tenth of a second, so that what is said next is
// heard soon. The clock is the caller's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace zest {

class UnsentLimit {
public:
    // Less would not keep a line busy while the next bytes are read from a disk.
    static constexpr std::size_t least_bytes = 256 * 1024;
    static constexpr std::size_t most_bytes = 2 * 1024 * 1024;

    // The first bytes wait: from now on the line is what they wait for.
    void begin(std::int64_t now_ms) noexcept {
        left_bytes_ = 0;
        since_ms_ = now_ms;
    }
    // So many have left.
    void left(std::size_t bytes, std::int64_t now_ms) noexcept {
        left_bytes_ += bytes;
        auto const passed_ms = now_ms - since_ms_;
        if (passed_ms < queue_ms) return;
        auto const taken = left_bytes_ * queue_ms / static_cast<std::size_t>(passed_ms);
        // Not at once to what was only a bad moment.
        bytes_ = std::clamp(std::max(taken, bytes_ / 2), least_bytes, most_bytes);
        begin(now_ms);
    }
    std::size_t bytes() const noexcept { return bytes_; }

private:
    static constexpr std::int64_t queue_ms = 100;
    std::size_t bytes_ = most_bytes / 2;
    std::size_t left_bytes_ = 0;
    std::int64_t since_ms_ = 0;
};

}  // namespace zest

// A token bucket: so many at once, so many a second after that. The clock is the caller's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace zest {

class Bucket {
public:
    Bucket(double burst, double per_second) : burst_(burst), per_ms_(per_second / 1000), tokens_(burst) {}

    bool ready(std::int64_t now_ms) {
        if (last_ms_ == never) last_ms_ = now_ms;
        tokens_ = std::min(burst_, tokens_ + per_ms_ * static_cast<double>(now_ms - last_ms_));
        last_ms_ = now_ms;
        return tokens_ >= 1;
    }
    bool take(std::int64_t now_ms) {
        if (!ready(now_ms)) return false;
        tokens_ -= 1;
        return true;
    }
    bool full(std::int64_t now_ms) { return ready(now_ms) && tokens_ >= burst_; }
    // When there will be one.
    std::int64_t ready_ms(std::int64_t now_ms) {
        return ready(now_ms) ? now_ms : now_ms + 1 + static_cast<std::int64_t>((1 - tokens_) / per_ms_);
    }

private:
    static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::min();
    double burst_;
    double per_ms_;
    double tokens_;
    std::int64_t last_ms_ = never;
};

}  // namespace zest

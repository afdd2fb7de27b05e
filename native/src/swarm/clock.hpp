// The time for what takes milliseconds.
#pragma once

#include <chrono>
#include <cstdint>

namespace zest {

inline std::int64_t steady_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace zest

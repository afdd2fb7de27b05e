// A manifest as native code keeps it: the chunks of a file (or of a run of one) in order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "wire.hpp"

namespace zest {

struct ChunkList {
    std::vector<Hash> hashes;
    std::vector<std::uint64_t> offsets;  // one more than chunks, from 0

    std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(hashes.size()); }
    std::uint32_t length(std::uint32_t chunk) const noexcept {
        return static_cast<std::uint32_t>(offsets[chunk + 1] - offsets[chunk]);
    }
    std::uint64_t bytes(ChunkSpan chunks) const noexcept { return offsets[chunks.end] - offsets[chunks.first]; }
};
using ChunkListPtr = std::shared_ptr<ChunkList const>;

}  // namespace zest

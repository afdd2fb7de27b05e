// Which chunks of something there are: a set of chunk numbers kept as runs.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "wire.hpp"

namespace zest {

class ChunkSet {
public:
    // How many of them are new.
    std::uint32_t add(ChunkSpan span);

    // The first run of the set inside `within`; an empty one at within.end when there is none.
    ChunkSpan first_run(ChunkSpan within) const;
    std::vector<ChunkSpan> runs() const;

    std::uint32_t count() const noexcept { return count_; }
    std::size_t run_count() const noexcept { return runs_.size(); }

private:
    std::map<std::uint32_t, std::uint32_t> runs_;  // first -> end; neither overlapping nor touching
    std::uint32_t count_ = 0;
};

// Ranges in any order, overlapping or not, as a list in order without overlaps; only the first `limit` of that.
std::vector<ChunkSpan> merged(std::vector<ChunkSpan> ranges, std::size_t limit);

// What of `now` is not in `before`, both in order without overlaps. Nothing of `before` may be missing in `now`: then
// `lost` is set.
std::vector<ChunkSpan> added(std::vector<ChunkSpan> const &before, std::vector<ChunkSpan> const &now, bool &lost);

}  // namespace zest

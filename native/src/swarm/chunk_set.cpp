#include "chunk_set.hpp"

#include <algorithm>

namespace zest {

std::uint32_t ChunkSet::add(ChunkSpan span) {
    if (span.first >= span.end) return 0;
    auto const before = count_;
    auto at = runs_.upper_bound(span.first);
    if (at != runs_.begin() && std::prev(at)->second >= span.first) --at;
    // All runs that overlap the new one or touch it become one with it.
    while (at != runs_.end() && at->first <= span.end) {
        span = {std::min(span.first, at->first), std::max(span.end, at->second)};
        count_ -= at->second - at->first;
        at = runs_.erase(at);
    }
    runs_.emplace_hint(at, span.first, span.end);
    count_ += span.count();
    return count_ - before;
}

ChunkSpan ChunkSet::first_run(ChunkSpan within) const {
    auto at = runs_.upper_bound(within.first);
    if (at != runs_.begin() && std::prev(at)->second > within.first) --at;
    if (at == runs_.end() || at->first >= within.end) return {within.end, within.end};
    return {std::max(at->first, within.first), std::min(at->second, within.end)};
}

std::vector<ChunkSpan> ChunkSet::runs() const {
    std::vector<ChunkSpan> out;
    out.reserve(runs_.size());
    for (auto const &[first, end] : runs_) out.push_back({first, end});
    return out;
}

std::vector<ChunkSpan> merged(std::vector<ChunkSpan> ranges, std::size_t limit) {
    std::sort(ranges.begin(), ranges.end(), [](ChunkSpan a, ChunkSpan b) { return a.first < b.first; });
    std::vector<ChunkSpan> out;
    for (auto const range : ranges) {
        if (range.first >= range.end) continue;
        if (!out.empty() && range.first <= out.back().end) {
            out.back().end = std::max(out.back().end, range.end);
        } else {
            if (out.size() == limit) break;
            out.push_back(range);
        }
    }
    return out;
}

std::vector<ChunkSpan> added(std::vector<ChunkSpan> const &before, std::vector<ChunkSpan> const &now, bool &lost) {
    std::vector<ChunkSpan> out;
    auto old = before.begin();
    for (auto const run : now) {
        auto at = run.first;
        for (; old != before.end() && old->first < run.end; ++old) {
            if (old->first < run.first || old->end > run.end) lost = true;
            if (old->first > at) out.push_back({at, old->first});
            at = std::max(at, old->end);
        }
        if (at < run.end) out.push_back({at, run.end});
    }
    if (old != before.end()) lost = true;
    return out;
}

}  // namespace zest

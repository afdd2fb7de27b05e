#include "chunker.h"

#include <algorithm>

#include "error.h"
#include "gear_table.h"

namespace zest {
namespace {

// A byte leaves the 64-bit hash after 64 shifts, so that the hash depends on the last 64 bytes only.
constexpr size_t window = 64;
// Nothing is hashed before this length of a chunk: one window and one byte short of the minimum.
constexpr size_t skipped = ZEST_CHUNK_MIN - window - 1;
// A chunk ends where the hash has its 16 highest bits zero: once in 64 KiB on average.
constexpr uint64_t cut_below = uint64_t{1} << 48;

// A roll waits for the one before it. Independent stretches of the data, rolled side by side, keep the processor busy.
constexpr size_t lanes = 3;
constexpr size_t lane_size = 1024;

inline uint64_t roll(uint64_t hash, uint8_t byte) { return (hash << 1) + gear_table[byte]; }

// Rolls over data[at, end). True at the first cut, with `at` behind the byte that made it.
inline bool search(const uint8_t *data, size_t &at, size_t end, uint64_t &hash) {
    uint64_t rolled = hash;
    size_t i = at;
    bool cut = false;
    while (i < end && !cut) {
        rolled = roll(rolled, data[i++]);
        cut = rolled < cut_below;
    }
    at = i;
    hash = rolled;
    return cut;
}

// The same over all lanes, where the hash already covers a full window.
bool search_lanes(const uint8_t *data, size_t &at, uint64_t &hash) {
    const uint8_t *first = data + at;
    const uint8_t *second = first + lane_size;
    const uint8_t *third = second + lane_size;
    // What precedes the first lane is in `hash` already, and may not be in this buffer.
    uint64_t rolled[lanes] = {hash, 0, 0};
    for (size_t i = lane_size - window; i < lane_size; ++i) {
        rolled[1] = roll(rolled[1], first[i]);
        rolled[2] = roll(rolled[2], second[i]);
    }
    size_t i = 0;
    uint64_t a = rolled[0];
    uint64_t b = rolled[1];
    uint64_t c = rolled[2];
    const auto step = [&] {
        a = roll(a, first[i]);
        b = roll(b, second[i]);
        c = roll(c, third[i]);
        ++i;
        return a < cut_below || b < cut_below || c < cut_below;
    };
    static_assert(lane_size % 4 == 0, "the loop below takes four steps at once");
    while (i < lane_size) {
        if (!(step() || step() || step() || step())) continue;
        // An earlier lane may still hold an earlier cut.
        rolled[0] = a;
        rolled[1] = b;
        rolled[2] = c;
        for (size_t k = 0; k < lanes; ++k) {
            const size_t begin = at + k * lane_size;
            size_t position = begin + i;
            if (rolled[k] < cut_below || search(data, position, begin + lane_size, rolled[k])) {
                at = position;
                return true;
            }
        }
    }
    at += lanes * lane_size;
    hash = c;
    return false;
}

}  // namespace

void check_rule(int rule) {
    if (rule != ZEST_RULE_CURRENT && rule != ZEST_RULE_EARLY) {
        throw Failure(make_error(ZEST_BAD_ARGUMENT, "unknown chunking rule %d", rule));
    }
}

// Up to the minimum size. True when the early rule cuts there.
bool Boundaries::search_head(const uint8_t *data, size_t size, size_t &at) {
    if (length_ < skipped) at = std::min(size, skipped - length_);
    if (length_ + at >= ZEST_CHUNK_MIN - 1) return false;
    const size_t end = std::min(size, ZEST_CHUNK_MIN - 1 - length_);
    if (rule_ == ZEST_RULE_EARLY) return search(data, at, end, hash_);
    for (; at < end; ++at) hash_ = roll(hash_, data[at]);
    return false;
}

bool Boundaries::next(const uint8_t *data, size_t size, size_t &taken) {
    size_t at = 0;
    bool cut = search_head(data, size, at);
    const size_t end = std::min(size, ZEST_CHUNK_MAX - length_);
    while (!cut && end - at >= lanes * lane_size) cut = search_lanes(data, at, hash_);
    if (!cut) cut = search(data, at, end, hash_);
    taken = at;
    length_ += at;
    if (!cut && length_ != ZEST_CHUNK_MAX) return false;
    length_ = 0;
    hash_ = 0;
    return true;
}

}  // namespace zest

struct zest_chunker {
    zest::Boundaries boundaries;
    uint64_t offset = 0;
};

extern "C" {

zest_chunker *zest_chunker_new(int32_t rule, zest_error *err) {
    zest_chunker *made = nullptr;
    zest::guard(err, [&] {
        zest::check_rule(rule);
        made = new zest_chunker{zest::Boundaries(rule)};
    });
    return made;
}

void zest_chunker_free(zest_chunker *chunker) { delete chunker; }

// The first boundary may need a single byte, every further one at least the bytes that are skipped.
size_t zest_chunker_bound(size_t size) { return size / zest::skipped + 1; }

size_t zest_chunker_feed(zest_chunker *chunker, const uint8_t *data, size_t size, uint64_t *boundaries,
                         size_t capacity) {
    size_t count = 0;
    // To the last byte: what follows the last boundary that there is room for belongs to the next chunk.
    while (size != 0) {
        size_t taken = 0;
        const bool ended = chunker->boundaries.next(data, size, taken);
        chunker->offset += taken;
        data += taken;
        size -= taken;
        if (ended && count < capacity) boundaries[count++] = chunker->offset;
    }
    return count;
}
}

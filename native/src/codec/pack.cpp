// Packs chunks as the reference uploader does.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "error.h"
#include "lz4_frame.h"
#include "transform.h"

namespace {

// Whether grouping bytes by 4 will help: how differently bits are populated in the four byte positions, as the largest
// Kullback-Leibler divergence of a position's histogram of bit counts from that of all four. Uploaders compare it with
// this threshold, found by experiments with real models.
constexpr double grouping_threshold = 0.02;

// counts[p][b]: how many bytes at positions p, p + 4, p + 8, ... have b bits set.
void count_bits(const uint8_t *data, size_t size, uint32_t counts[4][9]) {
    // A column of counters for each byte of a block, so that a compiler handles a block at once; a counter is a byte,
    // so that it is emptied in time.
    constexpr size_t width = 32;
    constexpr size_t rows_max = 255;
    size_t at = 0;
    while (size - at >= width) {
        uint8_t columns[9][width] = {};
        const size_t rows = std::min((size - at) / width, rows_max);
        for (size_t row = 0; row < rows; ++row, at += width) {
            uint8_t bits[width];
            for (size_t i = 0; i < width; ++i) {
                const uint8_t pairs = static_cast<uint8_t>(data[at + i] - ((data[at + i] >> 1) & 0x55));
                const uint8_t fours = static_cast<uint8_t>((pairs & 0x33) + ((pairs >> 2) & 0x33));
                bits[i] = static_cast<uint8_t>((fours & 0x0F) + (fours >> 4));
            }
            for (uint8_t value = 0; value < 9; ++value) {
                for (size_t i = 0; i < width; ++i) {
                    columns[value][i] = static_cast<uint8_t>(columns[value][i] + (bits[i] == value));
                }
            }
        }
        for (size_t value = 0; value < 9; ++value) {
            for (size_t i = 0; i < width; ++i) counts[i % 4][value] += columns[value][i];
        }
    }
    for (; at < size; ++at) ++counts[at % 4][__builtin_popcount(data[at])];
}

bool grouping_helps(const uint8_t *data, size_t size) {
    uint32_t counts[4][9] = {};
    count_bits(data, size, counts);
    // One extra count everywhere keeps the logarithm finite.
    uint32_t all[9];
    for (size_t bits = 0; bits < 9; ++bits) {
        all[bits] = 1 + counts[0][bits] + counts[1][bits] + counts[2][bits] + counts[3][bits];
    }
    const auto total = static_cast<double>(size + 9);
    for (size_t position = 0; position < 4; ++position) {
        const auto members = static_cast<double>((size + 3 - position) / 4);
        double divergence = 0;
        for (size_t bits = 0; bits < 9; ++bits) {
            if (counts[position][bits] == 0) continue;
            const double p = counts[position][bits] / members;
            divergence += p * std::log(p / (all[bits] / total));
        }
        if (divergence > grouping_threshold) return true;
    }
    return false;
}

void store_le24(uint8_t *out, size_t value) {
    out[0] = static_cast<uint8_t>(value);
    out[1] = static_cast<uint8_t>(value >> 8);
    out[2] = static_cast<uint8_t>(value >> 16);
}

size_t pack(const uint8_t *data, size_t size, int scheme, uint8_t *out, size_t capacity) {
    if (size == 0 || size > ZEST_CHUNK_MAX) {
        throw zest::Failure(
            zest::make_error(ZEST_BAD_ARGUMENT, "a chunk has 1..%d bytes, not %zu", ZEST_CHUNK_MAX, size));
    }
    if (scheme < ZEST_SCHEME_AUTO || scheme > ZEST_SCHEME_BITSLICE_LZ4) {
        throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT, "unknown compression scheme %d", scheme));
    }
    if (capacity < zest_pack_bound(size)) {
        throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT, "no room for a packed chunk of %zu bytes", size));
    }
    if (scheme == ZEST_SCHEME_AUTO) scheme = grouping_helps(data, size) ? ZEST_SCHEME_BG4_LZ4 : ZEST_SCHEME_LZ4;
    uint8_t *payload = out + ZEST_CHUNK_HEADER_SIZE;
    size_t packed = 0;
    if (scheme != ZEST_SCHEME_NONE) {
        std::unique_ptr<uint8_t[]> shuffled;
        const uint8_t *source = data;
        if (scheme != ZEST_SCHEME_LZ4) {
            shuffled.reset(new uint8_t[size]);
            (scheme == ZEST_SCHEME_BG4_LZ4 ? zest::bg4_split : zest::bitslice_split)(data, size, shuffled.get());
            source = shuffled.get();
        }
        packed = zest::frame_encode(source, size, payload, capacity - ZEST_CHUNK_HEADER_SIZE);
        if (packed == 0) throw std::bad_alloc();
    }
    if (packed == 0 || packed >= size) {
        scheme = ZEST_SCHEME_NONE;
        packed = size;
        std::memcpy(payload, data, size);
    }
    out[0] = 0;  // version
    store_le24(out + 1, packed);
    out[4] = static_cast<uint8_t>(scheme);
    store_le24(out + 5, size);
    return ZEST_CHUNK_HEADER_SIZE + packed;
}

}  // namespace

extern "C" {

size_t zest_pack_bound(size_t size) { return ZEST_CHUNK_HEADER_SIZE + zest::frame_bound(size); }

zest_status zest_pack_chunk(const uint8_t *data, size_t size, int32_t scheme, uint8_t *out, size_t capacity,
                            size_t *packed_size, zest_error *err) {
    *packed_size = 0;
    return zest::guard(err, [&] { *packed_size = pack(data, size, scheme, out, capacity); });
}
}

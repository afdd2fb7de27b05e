#include "transform.h"

#include <cstring>

namespace zest {
namespace {

struct Groups {
    size_t start[4];
};

Groups bg4_groups(size_t size) {
    Groups groups{};
    size_t start = 0;
    for (size_t k = 0; k < 4; ++k) {
        groups.start[k] = start;
        start += (size + 3 - k) / 4;
    }
    return groups;
}

// Transposes 8 x 8 bits: bit c of byte r becomes bit r of byte c.
uint64_t transpose(uint64_t x) {
    uint64_t swap = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAU;
    x ^= swap ^ (swap << 7);
    swap = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCU;
    x ^= swap ^ (swap << 14);
    swap = (x ^ (x >> 28)) & 0x00000000F0F0F0F0U;
    return x ^ swap ^ (swap << 28);
}

// Eight bits from bit position `at`; at + 8 is inside the array.
uint64_t load_bits(const uint8_t *in, size_t at) {
    const uint64_t low = in[at / 8];
    const uint64_t high = in[(at + 7) / 8];  // the same byte when `at` is aligned
    return ((low | high << 8) >> (at % 8)) & 255U;
}

// Sets eight bits from bit position `at`, where the array has zeros.
void store_bits(uint8_t *out, size_t at, uint64_t bits) {
    const uint64_t spread = bits << (at % 8);
    out[at / 8] = static_cast<uint8_t>(out[at / 8] | spread);
    if (spread >> 8 != 0) out[at / 8 + 1] = static_cast<uint8_t>(out[at / 8 + 1] | spread >> 8);
}

}  // namespace

void bg4_split(const uint8_t *__restrict in, size_t size, uint8_t *__restrict out) {
    const Groups groups = bg4_groups(size);
    uint8_t *__restrict a = out + groups.start[0];
    uint8_t *__restrict b = out + groups.start[1];
    uint8_t *__restrict c = out + groups.start[2];
    uint8_t *__restrict d = out + groups.start[3];
    const size_t whole = size / 4;
    for (size_t i = 0; i < whole; ++i) {
        a[i] = in[4 * i];
        b[i] = in[4 * i + 1];
        c[i] = in[4 * i + 2];
        d[i] = in[4 * i + 3];
    }
    for (size_t i = whole * 4; i < size; ++i) out[groups.start[i % 4] + whole] = in[i];
}

void bg4_join(const uint8_t *__restrict in, size_t size, uint8_t *__restrict out) {
    const Groups groups = bg4_groups(size);
    const uint8_t *__restrict a = in + groups.start[0];
    const uint8_t *__restrict b = in + groups.start[1];
    const uint8_t *__restrict c = in + groups.start[2];
    const uint8_t *__restrict d = in + groups.start[3];
    const size_t whole = size / 4;
    // Four streams interleaved with a power-of-two stride: compilers turn this loop into byte unpacks.
    for (size_t i = 0; i < whole; ++i) {
        out[4 * i] = a[i];
        out[4 * i + 1] = b[i];
        out[4 * i + 2] = c[i];
        out[4 * i + 3] = d[i];
    }
    for (size_t i = whole * 4; i < size; ++i) out[i] = in[groups.start[i % 4] + whole];
}

void bitslice_split(const uint8_t *in, size_t size, uint8_t *out) {
    std::memset(out, 0, size);
    const size_t whole = size / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t square = 0;
        for (size_t k = 0; k < 8; ++k) square |= static_cast<uint64_t>(in[i + k]) << (8 * k);
        square = transpose(square);
        for (size_t plane = 0; plane < 8; ++plane) {
            store_bits(out, plane * size + i, (square >> (8 * plane)) & 255U);
        }
    }
    for (size_t i = whole; i < size; ++i) {
        for (size_t plane = 0; plane < 8; ++plane) {
            const size_t at = plane * size + i;
            out[at / 8] = static_cast<uint8_t>(out[at / 8] | ((in[i] >> plane) & 1) << (at % 8));
        }
    }
}

void bitslice_join(const uint8_t *in, size_t size, uint8_t *out) {
    const size_t whole = size / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t square = 0;
        for (size_t plane = 0; plane < 8; ++plane) square |= load_bits(in, plane * size + i) << (8 * plane);
        square = transpose(square);
        for (size_t k = 0; k < 8; ++k) out[i + k] = static_cast<uint8_t>(square >> (8 * k));
    }
    for (size_t i = whole; i < size; ++i) {
        unsigned value = 0;
        for (size_t plane = 0; plane < 8; ++plane) {
            const size_t at = plane * size + i;
            value |= ((static_cast<unsigned>(in[at / 8]) >> (at % 8)) & 1U) << plane;
        }
        out[i] = static_cast<uint8_t>(value);
    }
}

}  // namespace zest

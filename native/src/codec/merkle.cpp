// The tree over an ordered list of (hash, length): xorb hash and file hash.
//
// A level is cut into groups; the hash of a group is the keyed BLAKE3 of one text line per member,
// "<hash text> : <length>\n", and its length is the sum of its members'. The groups are the next level, until one is
// left.
#include <cstring>
#include <vector>

#include "error.h"
#include "hash.h"

namespace zest {
namespace {

constexpr size_t group_min = 3;  // a group is cut at its third member at the earliest
constexpr size_t group_max = 9;
constexpr uint64_t cut_divisor = 4;
// 64 hex digits, " : ", at most 20 decimal digits, newline
constexpr size_t line_max = 64 + 3 + 20 + 1;

struct Node {
    Hash hash;
    uint64_t length;
};

uint64_t load_le64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
    return value;
}

bool cuts(const Hash &hash) { return load_le64(hash.data() + 24) % cut_divisor == 0; }

size_t group_size(const Node *nodes, size_t count) {
    if (count < group_min) return count;
    const size_t limit = count < group_max ? count : group_max;
    for (size_t i = group_min - 1; i < limit; ++i) {
        if (cuts(nodes[i].hash)) return i + 1;
    }
    return limit;
}

// The text form of a hash: four little-endian words, each as 16 hex digits.
uint8_t *write_hash(uint8_t *out, const Hash &hash) {
    static constexpr char digits[] = "0123456789abcdef";
    for (size_t word = 0; word < 4; ++word) {
        for (size_t byte = 8; byte-- > 0;) {
            const uint8_t value = hash[word * 8 + byte];
            *out++ = static_cast<uint8_t>(digits[value >> 4]);
            *out++ = static_cast<uint8_t>(digits[value & 15]);
        }
    }
    return out;
}

uint8_t *write_decimal(uint8_t *out, uint64_t value) {
    uint8_t reversed[20];
    size_t n = 0;
    do {
        reversed[n++] = static_cast<uint8_t>('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n > 0) *out++ = reversed[--n];
    return out;
}

Node merge(const Node *nodes, size_t count) {
    uint8_t text[group_max * line_max];
    uint8_t *out = text;
    uint64_t length = 0;
    for (size_t i = 0; i < count; ++i) {
        out = write_hash(out, nodes[i].hash);
        std::memcpy(out, " : ", 3);
        out = write_decimal(out + 3, nodes[i].length);
        *out++ = '\n';
        length += nodes[i].length;
    }
    return {node_hash(text, static_cast<size_t>(out - text)), length};
}

Hash root(const uint8_t *hashes, const uint32_t *lengths, size_t count) {
    if (count == 0) return Hash{};
    std::vector<Node> level(count);
    for (size_t i = 0; i < count; ++i) {
        std::memcpy(level[i].hash.data(), hashes + i * ZEST_HASH_SIZE, ZEST_HASH_SIZE);
        level[i].length = lengths[i];
    }
    while (count > 1) {
        size_t groups = 0;
        // In place: every group has at least one member, so that writing never overtakes reading.
        for (size_t i = 0; i < count;) {
            const size_t members = group_size(&level[i], count - i);
            level[groups++] = merge(&level[i], members);
            i += members;
        }
        count = groups;
    }
    return level[0].hash;
}

}  // namespace
}  // namespace zest

extern "C" {

zest_status zest_merkle_root(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                             zest_error *err) {
    return zest::guard(err, [&] {
        const zest::Hash hash = zest::root(hashes, lengths, count);
        std::memcpy(out, hash.data(), hash.size());
    });
}

zest_status zest_file_hash(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                           zest_error *err) {
    return zest::guard(err, [&] {
        // An empty file has the zero hash, not the keyed hash of a zero root.
        const zest::Hash hash = count == 0 ? zest::Hash{} : zest::file_salt_hash(zest::root(hashes, lengths, count));
        std::memcpy(out, hash.data(), hash.size());
    });
}
}

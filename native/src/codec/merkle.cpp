// The tree over an ordered list of (hash, length): xorb hash and file hash.
//
// A level is cut into groups; the hash of a group is the keyed BLAKE3 of one text line per member,
// "<hash text> : <length>\n", and its length is the sum of its members'. The groups are the next level, until one is
// left. Where a group ends depends on its own members alone, so that every level can be built as the members come.
#include <array>
#include <cstring>

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

}  // namespace

class Tree {
public:
    void add(const uint8_t *hashes, const uint32_t *lengths, size_t count) {
        for (size_t i = 0; i < count; ++i) {
            Node node;
            std::memcpy(node.hash.data(), hashes + i * ZEST_HASH_SIZE, ZEST_HASH_SIZE);
            node.length = lengths[i];
            add(0, node);
        }
    }

    bool empty() const { return levels_[0].size == 0 && !levels_[0].merged; }

    // 32 zero bytes for no members.
    Hash root() const {
        if (empty()) return Hash{};
        Tree ended = *this;
        // The end of the list ends the open group of every level, from the lowest to the one that has a single member.
        for (size_t level = 0;; ++level) {
            const Level &open = ended.levels_[level];
            if (open.size == 1 && !open.merged) return open.members[0].hash;
            if (open.size != 0) ended.close(level);
        }
    }

    // 32 zero bytes for an empty file, not the keyed hash of a zero root.
    Hash file_hash() const { return empty() ? Hash{} : file_salt_hash(root()); }

private:
    struct Level {
        std::array<Node, group_max> members{};  // of the open group
        size_t size = 0;
        bool merged = false;  // a group of this level is complete already
    };

    void add(size_t level, const Node &node) {
        Level &open = levels_[level];
        open.members[open.size++] = node;
        if (open.size == group_max || (open.size >= group_min && cuts(node.hash))) close(level);
    }

    void close(size_t level) {
        Level &open = levels_[level];
        const Node parent = merge(open.members.data(), open.size);
        open.size = 0;
        open.merged = true;
        add(level + 1, parent);
    }

    // All groups of a level but its last have 3 members or more: 2^64 members make 41 levels, and two for the ends.
    std::array<Level, 43> levels_;
};

}  // namespace zest

struct zest_tree : zest::Tree {};

extern "C" {

zest_tree *zest_tree_new(zest_error *err) {
    zest_tree *made = nullptr;
    zest::guard(err, [&] { made = new zest_tree; });
    return made;
}

zest_tree *zest_tree_copy(const zest_tree *tree, zest_error *err) {
    zest_tree *made = nullptr;
    zest::guard(err, [&] { made = new zest_tree(*tree); });
    return made;
}

void zest_tree_free(zest_tree *tree) { delete tree; }

void zest_tree_add(zest_tree *tree, const uint8_t *hashes, const uint32_t *lengths, size_t count) {
    tree->add(hashes, lengths, count);
}

void zest_tree_root(const zest_tree *tree, uint8_t out[32]) {
    const zest::Hash hash = tree->root();
    std::memcpy(out, hash.data(), hash.size());
}

void zest_tree_file_hash(const zest_tree *tree, uint8_t out[32]) {
    const zest::Hash hash = tree->file_hash();
    std::memcpy(out, hash.data(), hash.size());
}

zest_status zest_merkle_root(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                             zest_error *err) {
    return zest::guard(err, [&] {
        zest_tree tree;
        tree.add(hashes, lengths, count);
        zest_tree_root(&tree, out);
    });
}

zest_status zest_file_hash(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                           zest_error *err) {
    return zest::guard(err, [&] {
        zest_tree tree;
        tree.add(hashes, lengths, count);
        zest_tree_file_hash(&tree, out);
    });
}
}

// Feeds arbitrary bytes to the xorb decoder, whole and split, and checks that all ways of reading them agree.
//
// Input: byte 0 = size of the pieces, byte 1 = number of chunks expected, byte 2 = 1 to repack what was read; the rest
// is the xorb.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "zest_codec.h"

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

// Feeds in pieces; what the decoder made of them.
struct Outcome {
    zest_status status = ZEST_OK;
    uint32_t chunks = 0;
    std::vector<uint8_t> hashes;
};

Outcome unpack(const uint8_t *data, size_t size, size_t piece, uint32_t count) {
    zest_error err{};
    zest_unpacker *unpacker = zest_unpacker_new(-1, 0, count, nullptr, 0, nullptr, &err);
    require(unpacker != nullptr);
    Outcome outcome;
    while (size != 0 && outcome.status == ZEST_OK) {
        const size_t now = size < piece ? size : piece;
        // A copy of exactly this size, so that the sanitizer sees a read past a piece.
        const std::vector<uint8_t> copy(data, data + now);
        outcome.status = zest_unpacker_feed(unpacker, copy.data(), now, &err);
        data += now;
        size -= now;
    }
    if (outcome.status == ZEST_OK) outcome.status = zest_unpacker_finish(unpacker, &err);
    require(outcome.status == ZEST_OK || std::memchr(err.message, 0, sizeof err.message) != nullptr);
    const zest_unpacked *unpacked = zest_unpacker_unpacked(unpacker);
    outcome.chunks = unpacked->chunks_done;
    outcome.hashes.assign(unpacked->hashes, unpacked->hashes + size_t{outcome.chunks} * ZEST_HASH_SIZE);
    zest_unpacker_free(unpacker);
    return outcome;
}

// The decoder into memory makes the same of the chunks of a layout, and notices one byte more or less of room.
void unpack_layout(const uint8_t *data, const zest_layout *layout) {
    zest_error err{};
    const size_t count = zest_layout_count(layout);
    const size_t packed = zest_layout_packed_offsets(layout)[count];
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) total += zest_layout_lengths(layout)[i];
    std::vector<uint8_t> content(total + 1);
    std::vector<uint8_t> hashes(count * ZEST_HASH_SIZE);
    require(zest_unpack(data, packed, count, content.data(), total, hashes.data(), &err) == ZEST_OK);
    require(std::memcmp(hashes.data(), zest_layout_hashes(layout), hashes.size()) == 0);
    require(zest_unpack(data, packed, count, content.data(), total + 1, nullptr, &err) == ZEST_MALFORMED);
    require(zest_unpack(data, packed, count, content.data(), total - 1, nullptr, &err) == ZEST_MALFORMED);
    require(zest_unpack(data, packed - 1, count, content.data(), total, nullptr, &err) == ZEST_MALFORMED);
    size_t at = 0;
    for (size_t i = 0; i < count; ++i) {
        uint8_t hash[32];
        const uint32_t length = zest_layout_lengths(layout)[i];
        zest_chunk_hash(content.data() + at, length, hash);
        require(std::memcmp(hash, hashes.data() + i * ZEST_HASH_SIZE, sizeof hash) == 0);
        at += length;
    }
}

void repack(const uint8_t *data, size_t size) {
    if (size == 0 || size > ZEST_CHUNK_MAX) return;
    zest_error err{};
    uint8_t wanted[32];
    zest_chunk_hash(data, size, wanted);
    std::vector<uint8_t> packed(zest_pack_bound(size));
    for (int32_t scheme = ZEST_SCHEME_AUTO; scheme <= ZEST_SCHEME_BITSLICE_LZ4; ++scheme) {
        size_t packed_size = 0;
        require(zest_pack_chunk(data, size, scheme, packed.data(), packed.size(), &packed_size, &err) == ZEST_OK);
        const Outcome outcome = unpack(packed.data(), packed_size, packed_size, 1);
        require(outcome.status == ZEST_OK && std::memcmp(outcome.hashes.data(), wanted, sizeof wanted) == 0);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    const size_t piece = data[0] == 0 ? 1 : size_t{data[0]} * data[0];
    const uint32_t count = 1U + data[1];
    const bool pack = data[2] == 1;
    data += 3;
    size -= 3;

    const Outcome whole = unpack(data, size, size == 0 ? 1 : size, count);
    const Outcome split = unpack(data, size, piece, count);
    require(whole.status == split.status && whole.hashes == split.hashes);

    zest_error err{};
    zest_layout *layout = zest_layout_new(data, size, &err);
    if (layout != nullptr) {
        const size_t chunks = zest_layout_count(layout);
        require(chunks > 0 && zest_layout_packed_offsets(layout)[chunks] <= size);
        if (whole.status == ZEST_OK) require(chunks == count);
        uint8_t root[32];
        require(zest_merkle_root(zest_layout_hashes(layout), zest_layout_lengths(layout), chunks, root, &err) ==
                ZEST_OK);
        zest_tree *tree = zest_tree_new(&err);
        uint8_t stepwise[32];
        for (size_t i = 0; i < chunks; ++i) {
            zest_tree_add(tree, zest_layout_hashes(layout) + i * ZEST_HASH_SIZE, zest_layout_lengths(layout) + i, 1);
        }
        zest_tree_root(tree, stepwise);
        require(std::memcmp(root, stepwise, sizeof root) == 0);
        zest_tree_free(tree);
        unpack_layout(data, layout);
        zest_layout_free(layout);
    } else {
        require(whole.status != ZEST_OK);
    }
    if (pack) repack(data, size);
    return 0;
}

#include "hash.h"

#include <blake3.h>

#include <cstring>

#include "zest_codec.h"

namespace zest {
namespace {

using Key = uint8_t[BLAKE3_KEY_LEN];

// Keys fixed by the protocol: one per kind of hash, so that a value of one kind never passes for another.
constexpr Key data_key = {102, 151, 245, 119, 91,  149, 80, 222, 49,  53,  203, 172, 165, 151, 24,  28,
                          157, 228, 33,  16,  155, 235, 43, 88,  180, 208, 176, 75,  147, 173, 242, 41};
constexpr Key node_key = {1,  126, 197, 199, 165, 71,  41,  150, 253, 148, 102, 102, 180, 138, 2,   230,
                          93, 221, 83,  111, 55,  199, 109, 210, 248, 99,  82,  230, 74,  83,  113, 63};
constexpr Key verification_key = {127, 24,  87, 214, 206, 86,  237, 102, 18, 127, 249, 19,  231, 165, 195, 243,
                                  164, 205, 38, 213, 181, 219, 73,  230, 65, 36,  152, 127, 40,  251, 148, 195};
constexpr Key file_key = {};

Hash keyed(const uint8_t *key, const uint8_t *data, size_t size) {
    blake3_hasher hasher;
    blake3_hasher_init_keyed(&hasher, key);
    if (size != 0) blake3_hasher_update(&hasher, data, size);
    Hash out;
    blake3_hasher_finalize(&hasher, out.data(), out.size());
    return out;
}

}  // namespace

Hash chunk_hash(const uint8_t *data, size_t size) { return keyed(data_key, data, size); }
Hash node_hash(const uint8_t *text, size_t size) { return keyed(node_key, text, size); }
Hash verification_hash(const uint8_t *raw, size_t size) { return keyed(verification_key, raw, size); }
Hash file_salt_hash(const Hash &root) { return keyed(file_key, root.data(), root.size()); }
Hash keyed_hash(const uint8_t key[32], const uint8_t hash[32]) { return keyed(key, hash, ZEST_HASH_SIZE); }

}  // namespace zest

extern "C" {

int32_t zest_codec_abi(void) { return ZEST_CODEC_ABI; }

void zest_chunk_hash(const uint8_t *data, size_t size, uint8_t out[32]) {
    const zest::Hash hash = zest::chunk_hash(data, size);
    std::memcpy(out, hash.data(), hash.size());
}

void zest_verification_hash(const uint8_t *hashes, size_t count, uint8_t out[32]) {
    const zest::Hash hash = zest::verification_hash(hashes, count * ZEST_HASH_SIZE);
    std::memcpy(out, hash.data(), hash.size());
}

void zest_keyed_hashes(const uint8_t *hashes, size_t count, const uint8_t key[32], uint8_t *out) {
    for (size_t i = 0; i < count; ++i) {
        const zest::Hash hash = zest::keyed_hash(key, hashes + i * ZEST_HASH_SIZE);
        std::memcpy(out + i * ZEST_HASH_SIZE, hash.data(), hash.size());
    }
}
}

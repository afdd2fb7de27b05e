// The keyed BLAKE3 hashes of the Xet protocol.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace zest {

using Hash = std::array<uint8_t, 32>;

Hash chunk_hash(const uint8_t *data, size_t size);
Hash node_hash(const uint8_t *text, size_t size);
Hash verification_hash(const uint8_t *raw_hashes, size_t size);
Hash file_salt_hash(const Hash &root);
Hash keyed_hash(const uint8_t key[32], const uint8_t hash[32]);

}  // namespace zest

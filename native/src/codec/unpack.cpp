// A run of packed chunks in memory, decoded into memory.
#include <cstring>

#include "chunk_decoder.h"
#include "error.h"
#include "hash.h"

namespace {

void unpack(const uint8_t *data, size_t size, size_t count, uint8_t *out, size_t out_size, uint8_t *hashes) {
    zest::ChunkDecoder decoder;
    for (size_t i = 0; i < count; ++i) {
        const auto index = static_cast<uint32_t>(i);
        if (size < ZEST_CHUNK_HEADER_SIZE) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the bytes end after %zu of %zu chunks", i, count));
        }
        const zest::ChunkHeader header = zest::parse_header(data, index);
        data += ZEST_CHUNK_HEADER_SIZE;
        size -= ZEST_CHUNK_HEADER_SIZE;
        if (size < header.packed_size) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the bytes end inside chunk %u", index));
        }
        if (out_size < header.unpacked_size) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "chunk %u is larger than announced", index));
        }
        decoder.decode_into(header, data, index, out);
        if (hashes != nullptr) {
            const zest::Hash hash = zest::chunk_hash(out, header.unpacked_size);
            std::memcpy(hashes + i * ZEST_HASH_SIZE, hash.data(), hash.size());
        }
        data += header.packed_size;
        size -= header.packed_size;
        out += header.unpacked_size;
        out_size -= header.unpacked_size;
    }
    if (size != 0 || out_size != 0) {
        throw zest::Failure(zest::make_error(
            ZEST_MALFORMED, "%zu packed and %zu unpacked bytes are left after %zu chunks", size, out_size, count));
    }
}

}  // namespace

extern "C" {

zest_status zest_unpack(const uint8_t *data, size_t size, size_t count, uint8_t *out, size_t out_size, uint8_t *hashes,
                        zest_error *err) {
    return zest::guard(err, [&] { unpack(data, size, count, out, out_size, hashes); });
}
}

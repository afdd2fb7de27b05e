// One packed chunk: its 8-byte header and its payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "lz4_frame.h"
#include "zest_codec.h"

namespace zest {

struct ChunkHeader {
    uint32_t packed_size;
    uint32_t unpacked_size;
    int scheme;
};

// True when these bytes begin a xorb's footer instead of a chunk; `size` of 7 bytes is enough to tell.
bool begins_footer(const uint8_t *bytes, size_t size);

// Parses ZEST_CHUNK_HEADER_SIZE bytes and checks every limit. Throws Failure; `index` is for its message.
ChunkHeader parse_header(const uint8_t *bytes, uint32_t index);

class ChunkDecoder {
public:
    // The chunk's unpacked_size bytes: in `payload` itself when stored, else in a buffer that the next call reuses.
    // Throws Failure.
    const uint8_t *decode(const ChunkHeader &header, const uint8_t *payload, uint32_t index);

    // The same into out[0, unpacked_size).
    void decode_into(const ChunkHeader &header, const uint8_t *payload, uint32_t index, uint8_t *out);

private:
    FrameDecoder frames_;
    std::unique_ptr<uint8_t[]> shuffled_;
    std::unique_ptr<uint8_t[]> out_;
};

}  // namespace zest

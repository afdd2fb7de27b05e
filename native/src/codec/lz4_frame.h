// LZ4 frames (https://github.com/lz4/lz4, "LZ4 Frame format"), one per packed chunk.
#pragma once

#include <lz4frame.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace zest {

class FrameDecoder {
public:
    // Decodes a frame that fills in[0, in_size) and must expand to exactly out_size bytes. False if it does not.
    // Throws std::bad_alloc.
    bool decode(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size);

private:
    struct Free {
        void operator()(LZ4F_dctx *context) const { LZ4F_freeDecompressionContext(context); }
    };
    bool decode_any(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size);
    std::unique_ptr<LZ4F_dctx, Free> context_;
};

// Most bytes that a frame of `size` bytes of content can have.
size_t frame_bound(size_t size);

// Writes one frame; 0 if it does not fit into `capacity`.
size_t frame_encode(const uint8_t *in, size_t size, uint8_t *out, size_t capacity);

}  // namespace zest

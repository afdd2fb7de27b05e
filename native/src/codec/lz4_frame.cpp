#include "lz4_frame.h"

#include <lz4.h>

#include <array>
#include <cstring>
#include <new>

#include "zest_codec.h"

namespace zest {
namespace {

constexpr size_t plain_header_size = 7;  // magic, FLG, BD, header checksum
constexpr size_t block_size_size = 4;
constexpr size_t end_mark_size = 4;
constexpr uint32_t stored_block = 0x80000000U;

struct PlainHeader {
    std::array<uint8_t, plain_header_size> bytes;
    size_t block_max;
};

LZ4F_preferences_t plain_preferences(LZ4F_blockSizeID_t id) {
    LZ4F_preferences_t preferences{};
    preferences.frameInfo.blockSizeID = id;
    preferences.frameInfo.blockMode = LZ4F_blockIndependent;
    preferences.autoFlush = 1;
    return preferences;
}

// The frame headers that uploaders write (no checksums, no content size, independent blocks), as the library itself
// writes them, so that the fast path needs no copy of its header checksum.
std::array<PlainHeader, 4> make_plain_headers() {
    std::array<PlainHeader, 4> headers{};
    static constexpr LZ4F_blockSizeID_t ids[] = {LZ4F_max64KB, LZ4F_max256KB, LZ4F_max1MB, LZ4F_max4MB};
    LZ4F_cctx *context = nullptr;
    if (LZ4F_isError(LZ4F_createCompressionContext(&context, LZ4F_VERSION))) throw std::bad_alloc();
    for (size_t i = 0; i < headers.size(); ++i) {
        const LZ4F_preferences_t preferences = plain_preferences(ids[i]);
        uint8_t buffer[LZ4F_HEADER_SIZE_MAX];
        const size_t size = LZ4F_compressBegin(context, buffer, sizeof buffer, &preferences);
        // An entry that could not be made stays zero and matches no frame.
        if (size == plain_header_size) {
            std::memcpy(headers[i].bytes.data(), buffer, plain_header_size);
            headers[i].block_max = size_t{65536} << (2 * i);
        }
    }
    LZ4F_freeCompressionContext(context);
    return headers;
}

uint32_t load_le32(const uint8_t *bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

// Content of the only block of a plain frame; nullptr when the frame has another form.
const uint8_t *single_block(const uint8_t *in, size_t in_size, size_t &size, bool &stored) {
    static const std::array<PlainHeader, 4> headers = make_plain_headers();
    constexpr size_t overhead = plain_header_size + block_size_size + end_mark_size;
    if (in_size <= overhead) return nullptr;
    const PlainHeader *header = nullptr;
    for (const PlainHeader &candidate : headers) {
        if (std::memcmp(in, candidate.bytes.data(), plain_header_size) == 0) header = &candidate;
    }
    if (header == nullptr) return nullptr;
    const uint32_t field = load_le32(in + plain_header_size);
    size = field & ~stored_block;
    stored = (field & stored_block) != 0;
    if (size != in_size - overhead || size > header->block_max) return nullptr;
    if (load_le32(in + in_size - end_mark_size) != 0) return nullptr;
    return in + plain_header_size + block_size_size;
}

}  // namespace

bool FrameDecoder::decode(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size) {
    size_t size = 0;
    bool stored = false;
    const uint8_t *block = single_block(in, in_size, size, stored);
    if (block == nullptr) return decode_any(in, in_size, out, out_size);
    if (stored) {
        if (size != out_size) return false;
        std::memcpy(out, block, size);
        return true;
    }
    const int written = LZ4_decompress_safe(reinterpret_cast<const char *>(block), reinterpret_cast<char *>(out),
                                            static_cast<int>(size), static_cast<int>(out_size));
    return written >= 0 && static_cast<size_t>(written) == out_size;
}

bool FrameDecoder::decode_any(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size) {
    if (!context_) {
        LZ4F_dctx *made = nullptr;
        if (LZ4F_isError(LZ4F_createDecompressionContext(&made, LZ4F_VERSION))) throw std::bad_alloc();
        context_.reset(made);
    }
    LZ4F_resetDecompressionContext(context_.get());
    size_t used = 0;
    size_t written = 0;
    for (;;) {
        size_t source = in_size - used;
        size_t target = out_size - written;
        const size_t hint = LZ4F_decompress(context_.get(), out + written, &target, in + used, &source, nullptr);
        if (LZ4F_isError(hint)) return false;
        used += source;
        written += target;
        if (hint == 0) return used == in_size && written == out_size;
        // No progress: the frame is cut short, or holds more than the chunk's header says.
        if (source == 0 && target == 0) return false;
    }
}

size_t frame_bound(size_t size) { return LZ4F_compressFrameBound(size, nullptr); }

size_t frame_encode(const uint8_t *in, size_t size, uint8_t *out, size_t capacity) {
    const LZ4F_preferences_t preferences = plain_preferences(LZ4F_max256KB);
    const size_t written = LZ4F_compressFrame(out, capacity, in, size, &preferences);
    return LZ4F_isError(written) ? 0 : written;
}

}  // namespace zest

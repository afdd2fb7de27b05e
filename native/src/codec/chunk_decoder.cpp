#include "chunk_decoder.h"

#include <cstring>

#include "error.h"
#include "transform.h"

namespace zest {
namespace {

constexpr uint8_t header_version = 0;
constexpr char footer_ident[] = "XETBLOB";
constexpr size_t footer_ident_size = sizeof footer_ident - 1;

uint32_t load_le24(const uint8_t *bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16;
}

}  // namespace

bool begins_footer(const uint8_t *bytes, size_t size) {
    return size >= footer_ident_size && std::memcmp(bytes, footer_ident, footer_ident_size) == 0;
}

ChunkHeader parse_header(const uint8_t *bytes, uint32_t index) {
    const ChunkHeader header{load_le24(bytes + 1), load_le24(bytes + 5), bytes[4]};
    if (bytes[0] != header_version) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: unknown header version %u", index, bytes[0]));
    }
    if (header.scheme > ZEST_SCHEME_BITSLICE_LZ4) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: unknown compression scheme %d", index, header.scheme));
    }
    if (header.unpacked_size == 0 || header.unpacked_size > ZEST_CHUNK_MAX) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: unpacked size %u is not in 1..%d", index,
                                 header.unpacked_size, ZEST_CHUNK_MAX));
    }
    if (header.packed_size == 0 || header.packed_size > ZEST_CHUNK_PACKED_MAX) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: packed size %u is not in 1..%d", index, header.packed_size,
                                 ZEST_CHUNK_PACKED_MAX));
    }
    if (header.scheme == ZEST_SCHEME_NONE && header.packed_size != header.unpacked_size) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: stored, but its sizes %u and %u differ", index,
                                 header.packed_size, header.unpacked_size));
    }
    return header;
}

const uint8_t *ChunkDecoder::decode(const ChunkHeader &header, const uint8_t *payload, uint32_t index) {
    if (header.scheme == ZEST_SCHEME_NONE) return payload;
    // Not value-initialised: it is always filled before it is read.
    if (!out_) out_.reset(new uint8_t[ZEST_CHUNK_MAX]);
    decode_into(header, payload, index, out_.get());
    return out_.get();
}

void ChunkDecoder::decode_into(const ChunkHeader &header, const uint8_t *payload, uint32_t index, uint8_t *out) {
    if (header.scheme == ZEST_SCHEME_NONE) {
        std::memcpy(out, payload, header.unpacked_size);
        return;
    }
    const bool plain = header.scheme == ZEST_SCHEME_LZ4;
    if (!plain && !shuffled_) shuffled_.reset(new uint8_t[ZEST_CHUNK_MAX]);
    uint8_t *target = plain ? out : shuffled_.get();
    if (!frames_.decode(payload, header.packed_size, target, header.unpacked_size)) {
        throw Failure(make_error(ZEST_MALFORMED, "chunk %u: its LZ4 frame does not expand to %u bytes", index,
                                 header.unpacked_size));
    }
    if (header.scheme == ZEST_SCHEME_BG4_LZ4) bg4_join(target, header.unpacked_size, out);
    if (header.scheme == ZEST_SCHEME_BITSLICE_LZ4) bitslice_join(target, header.unpacked_size, out);
}

}  // namespace zest

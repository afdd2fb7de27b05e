// A whole serialized xorb in memory: where its chunks are and what they hash to.
#include <vector>

#include "chunk_decoder.h"
#include "error.h"
#include "hash.h"

struct zest_layout {
    std::vector<uint8_t> hashes;
    std::vector<uint32_t> lengths;
    std::vector<uint64_t> packed_offsets;
};

namespace {

zest_layout *read_layout(const uint8_t *data, size_t size) {
    auto layout = std::make_unique<zest_layout>();
    zest::ChunkDecoder decoder;
    size_t at = 0;
    layout->packed_offsets.push_back(0);
    while (at < size && !zest::begins_footer(data + at, size - at)) {
        const auto index = static_cast<uint32_t>(layout->lengths.size());
        if (index == ZEST_XORB_MAX_CHUNKS) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "more than %d chunks", ZEST_XORB_MAX_CHUNKS));
        }
        if (size - at < ZEST_CHUNK_HEADER_SIZE) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the bytes end inside the header of chunk %u", index));
        }
        const zest::ChunkHeader header = zest::parse_header(data + at, index);
        at += ZEST_CHUNK_HEADER_SIZE;
        if (size - at < header.packed_size) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the bytes end inside chunk %u", index));
        }
        const uint8_t *content = decoder.decode(header, data + at, index);
        const zest::Hash hash = zest::chunk_hash(content, header.unpacked_size);
        layout->hashes.insert(layout->hashes.end(), hash.begin(), hash.end());
        layout->lengths.push_back(header.unpacked_size);
        at += header.packed_size;
        layout->packed_offsets.push_back(at);
    }
    if (layout->lengths.empty()) throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the xorb holds no chunk"));
    return layout.release();
}

}  // namespace

extern "C" {

zest_layout *zest_layout_new(const uint8_t *data, size_t size, zest_error *err) {
    zest_layout *made = nullptr;
    zest::guard(err, [&] { made = read_layout(data, size); });
    return made;
}

void zest_layout_free(zest_layout *layout) { delete layout; }
size_t zest_layout_count(const zest_layout *layout) { return layout->lengths.size(); }
const uint8_t *zest_layout_hashes(const zest_layout *layout) { return layout->hashes.data(); }
const uint32_t *zest_layout_lengths(const zest_layout *layout) { return layout->lengths.data(); }
const uint64_t *zest_layout_packed_offsets(const zest_layout *layout) { return layout->packed_offsets.data(); }
}

#include "chunk_list.hpp"

#include <cstring>

namespace zest {
namespace {

constexpr std::uint32_t chunks_a_mark = 64;
// Below that (4 KiB of hashes, some MB of a file) a file gains nothing.
constexpr std::uint32_t few_chunks = 128;

}  // namespace

ChunkList::ChunkList(std::uint32_t const *lengths, std::uint32_t chunks) : lengths_(lengths, lengths + chunks) {
    marks_.reserve(chunks / chunks_a_mark + 1);
    std::uint64_t at = 0;
    for (std::uint32_t i = 0; i <= chunks; ++i) {
        if (i % chunks_a_mark == 0) marks_.push_back(at);
        if (i != chunks) at += lengths_[i];
    }
}

ChunkList::ChunkList(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t chunks)
    : ChunkList(lengths, chunks) {
    keep(hashes, chunks);
}

ChunkList::ChunkList(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t chunks, HashFile &file)
    : ChunkList(lengths, chunks) {
    if (chunks >= few_chunks) run_ = file.keep({hashes, sizeof(Hash) * chunks});
    if (!run_) keep(hashes, chunks);
}

void ChunkList::keep(std::uint8_t const *hashes, std::uint32_t chunks) {
    hashes_.resize(chunks);
    if (chunks) std::memcpy(hashes_.data(), hashes, sizeof(Hash) * chunks);
}

std::uint64_t ChunkList::bytes(ChunkSpan chunks) const noexcept {
    if (chunks.count() >= chunks_a_mark) return offset(chunks.end) - offset(chunks.first);
    std::uint64_t sum = 0;
    for (auto i = chunks.first; i != chunks.end; ++i) sum += lengths_[i];
    return sum;
}

std::uint64_t ChunkList::offset(std::uint32_t chunk) const noexcept {
    auto const mark = chunk / chunks_a_mark;
    return marks_[mark] + bytes({mark * chunks_a_mark, chunk});
}

bool ChunkList::read_hashes(ChunkSpan chunks, std::uint8_t *out) const {
    auto const size = sizeof(Hash) * chunks.count();
    if (run_) return run_->read(sizeof(Hash) * chunks.first, out, size);
    if (size) std::memcpy(out, hashes_[chunks.first].data(), size);
    return true;
}

}  // namespace zest

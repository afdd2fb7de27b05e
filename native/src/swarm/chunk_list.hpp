// A manifest as native code keeps it: the chunks of a file (or of a run of one) in order.
//
// Lengths are looked at with every answer and stay in memory, 4 bytes a chunk. Hashes (32 bytes) are wanted for
// manifests and proofs alone: those of a list that only is offered may be kept in a file.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hash_file.hpp"
#include "wire.hpp"

namespace zest {

class ChunkList {
public:
    // The hashes: 32 bytes each.
    ChunkList(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t chunks);
    // With the hashes in the file, if it takes them and they are more than a few.
    ChunkList(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t chunks, HashFile &file);

    std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(lengths_.size()); }
    std::uint32_t length(std::uint32_t chunk) const noexcept { return lengths_[chunk]; }
    std::uint64_t bytes(ChunkSpan chunks) const noexcept;
    // Where the chunk begins; of count(): where the last one ends.
    std::uint64_t offset(std::uint32_t chunk) const noexcept;

    // Of a list that was made without a file.
    Hash const &hash(std::uint32_t chunk) const noexcept { return hashes_[chunk]; }
    // 32 bytes each. False: the disk does not give them. May take as long as a disk: not for the network thread.
    bool read_hashes(ChunkSpan chunks, std::uint8_t *out) const;

private:
    ChunkList(std::uint32_t const *lengths, std::uint32_t chunks);
    void keep(std::uint8_t const *hashes, std::uint32_t chunks);

    std::vector<std::uint32_t> lengths_;
    std::vector<std::uint64_t> marks_;  // offsets of some chunks
    std::vector<Hash> hashes_;          // in memory, or
    std::unique_ptr<HashFile::Run> run_;
};
using ChunkListPtr = std::shared_ptr<ChunkList const>;

}  // namespace zest

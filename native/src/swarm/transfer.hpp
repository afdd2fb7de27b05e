// A file that is being put together, or a run of one: where proved chunks are written, and read again for others.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "chunk_list.hpp"
#include "chunk_set.hpp"

namespace zest {

class Transfer {
public:
    // Takes the descriptor over. The list has its hashes in memory. The first chunk lies at offset_bytes of the file.
    Transfer(int fd, std::uint64_t offset_bytes, ChunkListPtr chunks);
    ~Transfer();
    Transfer(Transfer const &) = delete;
    Transfer &operator=(Transfer const &) = delete;

    ChunkListPtr const &list() const noexcept { return list_; }
    std::uint32_t chunks() const noexcept { return list_->count(); }
    Hash const &hash(std::uint32_t chunk) const noexcept { return list_->hash(chunk); }
    std::uint32_t length(std::uint32_t chunk) const noexcept { return list_->length(chunk); }

    // Whether these bytes are that chunk: length and BLAKE3.
    bool proves(std::uint32_t chunk, Bytes data) const noexcept;

    enum class Written { yes, closed, failed };
    // Write proved chunks in place: from now on they are held. failed: error_number is an errno, and `chunks` those
    // that were written before.
    Written write(ChunkSpan &chunks, Bytes data, int &error_number);
    // Somebody else has proved these chunks and written them in place. False: there are no such chunks.
    bool wrote(ChunkSpan chunks);

    // Run f with the descriptor and the offset of the first chunk. False without that when the transfer is closed.
    bool read(std::function<void(int fd, std::uint64_t offset_bytes)> const &f);
    bool readable();  // whether the descriptor allows it

    // The first run of chunks that are held inside `within`; an empty one when there is none, or it is closed.
    ChunkSpan first_held(ChunkSpan within) const;
    std::uint32_t held() const;  // how many chunks

    // When this returns nothing is written any more; what is held can still be read.
    void seal();
    // When this returns nothing is written any more, nor read: the caller may hand the file to somebody else.
    void close();
    bool closed() const noexcept { return closing_; }

private:
    // Shared by those who use the descriptor. Who finds `closing_` set does not start, so that closing never waits
    // for more than what runs.
    std::shared_mutex descriptor_;
    std::atomic<bool> closing_{false};
    std::atomic<bool> sealed_{false};
    int fd_;
    std::uint64_t const offset_bytes_;
    ChunkListPtr const list_;
    mutable std::mutex held_mutex_;  // never held while the disk is waited for
    ChunkSet held_;
};

}  // namespace zest

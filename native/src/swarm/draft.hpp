// Chunks of a xorb that nothing proves yet, in order, while they come: from the CDN, by who offers them, or from a peer
// that is getting them from there, by who follows it. What they are worth shows when all of them are there.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "wire.hpp"

namespace zest {

// Any thread may call any method.
class Draft {
public:
    // Takes the descriptor over. `chunks` of the xorb are to come, of size_bytes together; the first of them lies at
    // offset_bytes of the file.
    Draft(int fd, std::uint64_t offset_bytes, std::uint64_t size_bytes, Hash const &xorb, ChunkSpan chunks);
    ~Draft();
    Draft(Draft const &) = delete;
    Draft &operator=(Draft const &) = delete;

    Hash const xorb;
    ChunkSpan const chunks;

    enum class Written { yes, closed, failed, wrong };
    // The next chunk: hash it and write it in place. wrong: it is more than is to come; failed: error_number is an
    // errno.
    Written write(Bytes data, int &error_number);
    // The next chunks, which the caller has written in place. False: they are more than are to come, or it has ended.
    bool add(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t count);
    // Nothing more comes.
    void end();

    // How many have come, and their bytes.
    std::uint32_t count() const;
    std::uint64_t bytes() const;
    bool ended() const noexcept { return ended_; }
    bool complete() const;
    // Of those that have come, counted from the first: 32 bytes each, and lengths.
    void copy(ChunkSpan come, std::uint8_t *hashes, std::uint32_t *lengths) const;

    // Run f with the descriptor and where in the file a chunk that has come begins. False without that: it is closed.
    bool read(std::uint32_t come, std::function<void(int fd, std::uint64_t offset_bytes)> const &f);
    // When this returns nothing is written any more, nor read.
    void close();

    // Here, at the moment.
    std::atomic<unsigned> followers{0};

private:
    bool fits(std::uint32_t const *lengths, std::uint32_t count) const;
    void keep(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t count);

    std::shared_mutex descriptor_;  // shared by those who use it
    std::atomic<bool> closing_{false};
    std::atomic<bool> ended_{false};
    int fd_;
    std::uint64_t const offset_bytes_;
    std::uint64_t const size_bytes_;
    mutable std::mutex mutex_;  // never held while the disk is waited for
    std::vector<Hash> hashes_;
    std::vector<std::uint32_t> lengths_;
    std::vector<std::uint64_t> offsets_;  // of each, from the first
    std::uint64_t bytes_ = 0;
};
using DraftPtr = std::shared_ptr<Draft>;

// Those that are offered.
class Drafts {
public:
    void offer(DraftPtr draft);
    void withdraw(Draft const &draft);
    // In which this chunk of the xorb is to come; nullptr: there is none.
    DraftPtr find(Hash const &xorb, std::uint32_t chunk) const;

private:
    mutable std::mutex mutex_;
    std::multimap<Hash, DraftPtr> drafts_;
};

}  // namespace zest

// A file that is being put together: where proved chunks are written.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "wire.hpp"

namespace zest {

class Transfer {
public:
    // Takes the descriptor over.
    Transfer(int fd, std::vector<Hash> hashes, std::vector<std::uint64_t> offsets);
    ~Transfer();
    Transfer(Transfer const &) = delete;
    Transfer &operator=(Transfer const &) = delete;

    std::uint32_t chunks() const noexcept { return static_cast<std::uint32_t>(hashes_.size()); }
    Hash const &hash(std::uint32_t chunk) const noexcept { return hashes_[chunk]; }
    std::uint32_t length(std::uint32_t chunk) const noexcept {
        return static_cast<std::uint32_t>(offsets_[chunk + 1] - offsets_[chunk]);
    }

    // Whether these bytes are that chunk: length and BLAKE3.
    bool proves(std::uint32_t chunk, Bytes data) const noexcept;

    enum class Written { yes, closed, failed };
    // Write a proved chunk in place. failed: error_number is an errno.
    Written write(std::uint32_t chunk, Bytes data, int &error_number);

    // After this nothing is written any more: the caller may hand the file to somebody else.
    void close();
    bool closed();

private:
    std::mutex mutex_;  // one writer, or the one who closes
    int fd_;
    std::vector<Hash> const hashes_;
    std::vector<std::uint64_t> const offsets_;  // one more than chunks
};

}  // namespace zest

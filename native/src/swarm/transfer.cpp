#include "transfer.hpp"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "zest_codec.h"

namespace zest {

Transfer::Transfer(int fd, std::vector<Hash> hashes, std::vector<std::uint64_t> offsets)
    : fd_(fd), hashes_(std::move(hashes)), offsets_(std::move(offsets)) {}

Transfer::~Transfer() { close(); }

bool Transfer::proves(std::uint32_t chunk, Bytes data) const noexcept {
    if (chunk >= chunks() || data.size != length(chunk)) return false;
    Hash got;
    zest_chunk_hash(data.data, data.size, got.data());
    return got == hashes_[chunk];
}

Transfer::Written Transfer::write(std::uint32_t chunk, Bytes data, int &error_number) {
    std::lock_guard lock(mutex_);
    if (fd_ < 0) return Written::closed;
    auto at = static_cast<off_t>(offsets_[chunk]);
    while (data.size > 0) {
        auto const n = ::pwrite(fd_, data.data, data.size, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            error_number = n == 0 ? ENOSPC : errno;
            return Written::failed;
        }
        at += n;
        data = {data.data + n, data.size - static_cast<std::size_t>(n)};
    }
    return Written::yes;
}

void Transfer::close() {
    std::lock_guard lock(mutex_);
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

bool Transfer::closed() {
    std::lock_guard lock(mutex_);
    return fd_ < 0;
}

}  // namespace zest

#include "transfer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "zest_codec.h"

namespace zest {

Transfer::Transfer(int fd, std::uint64_t offset_bytes, ChunkListPtr chunks)
    : fd_(fd), offset_bytes_(offset_bytes), list_(std::move(chunks)) {}

Transfer::~Transfer() { close(); }

bool Transfer::proves(std::uint32_t chunk, Bytes data) const noexcept {
    if (chunk >= chunks() || data.size != length(chunk)) return false;
    Hash got;
    zest_chunk_hash(data.data, data.size, got.data());
    return got == hash(chunk);
}

Transfer::Written Transfer::write(ChunkSpan &chunks, Bytes data, int &error_number) {
    auto result = Written::yes;
    {
        std::shared_lock lock(descriptor_);
        if (closing_ || sealed_) return chunks.end = chunks.first, Written::closed;
        auto const begin = list_->offset(chunks.first);
        std::size_t done = 0;
        while (done < data.size) {
            auto const n =
                ::pwrite(fd_, data.data + done, data.size - done, static_cast<off_t>(offset_bytes_ + begin + done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                error_number = n == 0 ? ENOSPC : errno;
                result = Written::failed;
                break;
            }
            done += static_cast<std::size_t>(n);
        }
        if (result == Written::failed)
            while (chunks.end > chunks.first && list_->bytes(chunks) > done) --chunks.end;
    }
    wrote(chunks);
    return result;
}

bool Transfer::wrote(ChunkSpan chunks) {
    if (chunks.first >= chunks.end || chunks.end > list_->count()) return false;
    std::lock_guard lock(held_mutex_);
    held_.add(chunks);
    return true;
}

bool Transfer::read(std::function<void(int fd, std::uint64_t offset_bytes)> const &f) {
    std::shared_lock lock(descriptor_);
    if (closing_) return false;
    f(fd_, offset_bytes_);
    return true;
}

bool Transfer::readable() {
    int flags = -1;
    read([&](int fd, std::uint64_t) { flags = ::fcntl(fd, F_GETFL); });
    return flags >= 0 && (flags & O_ACCMODE) != O_WRONLY;
}

ChunkSpan Transfer::first_held(ChunkSpan within) const {
    if (closing_) return {within.end, within.end};
    std::lock_guard lock(held_mutex_);
    return held_.first_run(within);
}

std::uint32_t Transfer::held() const {
    std::lock_guard lock(held_mutex_);
    return held_.count();
}

void Transfer::seal() {
    sealed_ = true;
    std::unique_lock lock(descriptor_);  // who was writing has written
}

void Transfer::close() {
    closing_ = true;
    std::unique_lock lock(descriptor_);
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

}  // namespace zest

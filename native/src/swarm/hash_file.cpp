#include "hash_file.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

namespace zest {
namespace {

// Runs begin at one, so that what is freed is whole blocks.
constexpr std::uint64_t block_bytes = 4096;

std::uint64_t blocks_of(std::uint64_t bytes) { return (bytes + block_bytes - 1) / block_bytes * block_bytes; }

int open_nameless(std::string const &directory) {
#ifdef O_TMPFILE
    int const fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
#endif
    auto name = directory + "/hashes-XXXXXX";
    int const named = ::mkostemp(name.data(), O_CLOEXEC);
    if (named >= 0) ::unlink(name.c_str());
    return named;
}

}  // namespace

HashFile::~HashFile() {
    if (fd_ >= 0) ::close(fd_);
}

bool HashFile::open_locked() {
    if (fd_ < 0 && !directory_.empty()) fd_ = open_nameless(directory_);
    return fd_ >= 0;
}

std::unique_ptr<HashFile::Run> HashFile::keep(Bytes bytes) {
    std::uint64_t offset;
    {
        std::lock_guard lock(mutex_);
        if (!open_locked()) return nullptr;
        offset = end_;
        end_ += blocks_of(bytes.size);
        ++runs_;
    }
    // Gives the place back when it is not filled.
    auto run = std::make_unique<Run>(shared_from_this(), offset, bytes.size);
    for (std::size_t at = 0; at < bytes.size;) {
        auto const n = ::pwrite(fd_, bytes.data + at, bytes.size - at, static_cast<off_t>(offset + at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return nullptr;
        at += static_cast<std::size_t>(n);
    }
    return run;
}

void HashFile::free(std::uint64_t offset, std::size_t size) {
    std::lock_guard lock(mutex_);
    if (--runs_ == 0) {
        // Where there are no holes the room comes back with the last run.
        end_ = 0;
        if (::ftruncate(fd_, 0) == 0) return;
    }
#ifdef FALLOC_FL_PUNCH_HOLE
    ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(blocks_of(size)));
#else
    static_cast<void>(offset);
    static_cast<void>(size);
#endif
}

HashFile::Run::~Run() { file_->free(offset_, size_); }

bool HashFile::Run::read(std::size_t first, std::uint8_t *out, std::size_t size) const {
    if (first > size_ || size > size_ - first) return false;
    for (std::size_t at = 0; at < size;) {
        auto const n = ::pread(file_->fd_, out + at, size - at, static_cast<off_t>(offset_ + first + at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += static_cast<std::size_t>(n);
    }
    return true;
}

}  // namespace zest

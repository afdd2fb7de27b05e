// Chunks and hashes a file with positioned reads into one reused buffer.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "chunker.h"
#include "error.h"
#include "hash.h"

namespace {

// Small enough to stay in the second-level cache between the read, the boundary search and the hash.
constexpr size_t read_size = size_t{512} * 1024;
// What one read can leave over is less than a chunk.
constexpr size_t buffer_size = read_size + ZEST_CHUNK_MAX;

}  // namespace

struct zest_scan {
public:
    zest_scan(int fd, uint64_t begin, uint64_t end, uint64_t size, int rule)
        : fd_(fd), end_(end), size_(size), read_(begin), at_(begin), boundaries_(rule) {
        zest::check_rule(rule);
        if (begin > end || end > size) {
            throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT, "a part of a file that is not inside the file"));
        }
        buffer_.reset(new uint8_t[buffer_size]);
#ifdef POSIX_FADV_SEQUENTIAL
        // Only advice: a file system that refuses it is as good.
        (void)::posix_fadvise(fd, static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_SEQUENTIAL);
#endif
    }

    size_t next(size_t max_chunks, uint8_t *hashes, uint32_t *lengths) {
        size_t count = 0;
        while (count < max_chunks && at_ < end_) {
            size_t taken = 0;
            const bool ended = boundaries_.next(buffer_.get() + searched_, filled_ - searched_, taken);
            searched_ += taken;
            if (!ended && read_ < size_) {
                refill();
                continue;
            }
            // At the end of the file what is left is the last chunk.
            if (searched_ == begin_) break;
            const size_t length = searched_ - begin_;
            const zest::Hash hash = zest::chunk_hash(buffer_.get() + begin_, length);
            std::memcpy(hashes + count * ZEST_HASH_SIZE, hash.data(), hash.size());
            lengths[count++] = static_cast<uint32_t>(length);
            at_ += length;
            begin_ = searched_;
        }
        return count;
    }

private:
    void refill() {
        std::memmove(buffer_.get(), buffer_.get() + begin_, filled_ - begin_);
        filled_ -= begin_;
        searched_ -= begin_;
        begin_ = 0;
        const size_t want = static_cast<size_t>(std::min<uint64_t>(buffer_size - filled_, size_ - read_));
        ssize_t got = 0;
        do {
            got = ::pread(fd_, buffer_.get() + filled_, want, static_cast<off_t>(read_));
        } while (got < 0 && errno == EINTR);
        if (got < 0) zest::throw_system("cannot read the file", errno);
        if (got == 0) {
            throw zest::Failure(zest::make_error(ZEST_SHORT_FILE, "the file ended after %llu of %llu bytes",
                                                 static_cast<unsigned long long>(read_),
                                                 static_cast<unsigned long long>(size_)));
        }
        filled_ += static_cast<size_t>(got);
        read_ += static_cast<uint64_t>(got);
    }

    const int fd_;
    const uint64_t end_;
    const uint64_t size_;
    uint64_t read_;  // of the file
    uint64_t at_;    // where the current chunk starts in the file
    std::unique_ptr<uint8_t[]> buffer_;
    size_t begin_ = 0;     // of the current chunk
    size_t searched_ = 0;  // up to here for a boundary
    size_t filled_ = 0;
    zest::Boundaries boundaries_;
};

extern "C" {

zest_scan *zest_scan_new(int32_t fd, uint64_t begin, uint64_t end, uint64_t size, int32_t rule, zest_error *err) {
    zest_scan *made = nullptr;
    zest::guard(err, [&] { made = new zest_scan(fd, begin, end, size, rule); });
    return made;
}

void zest_scan_free(zest_scan *scan) { delete scan; }

zest_status zest_scan_next(zest_scan *scan, size_t max_chunks, uint8_t *hashes, uint32_t *lengths, size_t *count,
                           zest_error *err) {
    *count = 0;
    return zest::guard(err, [&] { *count = scan->next(max_chunks, hashes, lengths); });
}
}

// Takes chunks that are known from one file and puts them into another, checking each on its way.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "error.h"
#include "hash.h"

namespace {

// Small enough to stay in the second-level cache between the read, the hash and the write.
constexpr size_t batch_size = size_t{512} * 1024;

// Fills as much of the buffer as there is to be read; what cannot be read is not there.
size_t read_at(int fd, uint8_t *out, size_t size, uint64_t offset) {
    size_t filled = 0;
    while (filled < size) {
        const ssize_t got = ::pread(fd, out + filled, size - filled, static_cast<off_t>(offset + filled));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        filled += static_cast<size_t>(got);
    }
    return filled;
}

void write_at(int fd, const uint8_t *data, size_t size, uint64_t offset) {
    while (size > 0) {
        const ssize_t put = ::pwrite(fd, data, size, static_cast<off_t>(offset));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) zest::throw_system("cannot write the file", put < 0 ? errno : EIO);
        data += put;
        size -= static_cast<size_t>(put);
        offset += static_cast<uint64_t>(put);
    }
}

bool is_same_file(int one, int other) {
    struct stat a {
    }, b{};
    return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void copy_chunks(int from, uint64_t from_offset, int to, uint64_t to_offset, const uint8_t *hashes,
                 const uint32_t *lengths, size_t count, size_t &copied) {
    for (size_t at = 0; at < count; ++at) {
        if (lengths[at] == 0 || lengths[at] > ZEST_CHUNK_MAX) {
            throw zest::Failure(
                zest::make_error(ZEST_BAD_ARGUMENT, "a chunk of %lu bytes", (unsigned long)lengths[at]));
        }
    }
    // What is where it should be is checked alone: to write it again would cost the disk as much as to fetch it.
    const bool in_place = from_offset == to_offset && is_same_file(from, to);
    const std::unique_ptr<uint8_t[]> buffer(new uint8_t[batch_size]);
    while (copied < count) {
        size_t wanted = 0;
        size_t end = copied;
        while (end < count && wanted + lengths[end] <= batch_size) wanted += lengths[end++];
        const size_t filled = read_at(from, buffer.get(), wanted, from_offset);
        size_t right = 0;
        size_t at = copied;
        while (at < end && right + lengths[at] <= filled) {
            // The private copy is what is hashed and written: whoever changes the file meanwhile changes nothing here.
            const zest::Hash hash = zest::chunk_hash(buffer.get() + right, lengths[at]);
            if (std::memcmp(hash.data(), hashes + at * ZEST_HASH_SIZE, ZEST_HASH_SIZE) != 0) break;
            right += lengths[at++];
        }
        if (!in_place) write_at(to, buffer.get(), right, to_offset);
        copied = at;
        if (at < end) return;
        from_offset += right;
        to_offset += right;
    }
}

}  // namespace

extern "C" {

zest_status zest_copy_chunks(int32_t from_fd, uint64_t from_offset, int32_t to_fd, uint64_t to_offset,
                             const uint8_t *hashes, const uint32_t *lengths, size_t count, size_t *copied,
                             zest_error *err) {
    *copied = 0;
    return zest::guard(err,
                       [&] { copy_chunks(from_fd, from_offset, to_fd, to_offset, hashes, lengths, count, *copied); });
}
}

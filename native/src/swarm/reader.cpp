#include "reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>

namespace zest {
namespace {

constexpr std::size_t max_open_files = 64;
constexpr std::int64_t idle_ns = 15'000'000'000;

std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Chunks lie together in the file, from offset_bytes on, and apart at `out`. length: of each.
template <typename Length>
bool read_apart(int fd, std::uint64_t offset_bytes, std::uint32_t count, Length length, Spacing spacing,
                std::uint8_t *out) {
    std::array<iovec, max_read_chunks> parts;
    for (std::uint32_t i = 0; i < count; ++i) {
        out += spacing.header;
        parts[i] = {out, length(i)};
        out += parts[i].iov_len + spacing.tail;
    }
    auto offset = static_cast<off_t>(offset_bytes);
    std::uint32_t part = 0;
    while (part < count) {
        auto n = ::preadv(fd, parts.data() + part, static_cast<int>(count - part), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        offset += n;
        while (part < count && static_cast<std::size_t>(n) >= parts[part].iov_len)
            n -= static_cast<ssize_t>(parts[part++].iov_len);
        if (n > 0) {
            parts[part].iov_base = static_cast<char *>(parts[part].iov_base) + n;
            parts[part].iov_len -= static_cast<std::size_t>(n);
        }
    }
    return true;
}

}  // namespace

Got read_chunks(OpenFiles &files, SharedFile const &file, ChunkSpan chunks, Spacing spacing, std::uint8_t *out) {
    out += spacing.lead;
    auto const length = [&](std::uint32_t i) { return file.list->length(chunks.first + i); };
    auto const offset = file.list->offset(chunks.first);
    if (file.transfer) {
        bool read = false;
        file.transfer->read([&](int fd, std::uint64_t offset_bytes) {
            read = read_apart(fd, offset_bytes + offset, chunks.count(), length, spacing, out);
        });
        return read ? Got::bytes : Got::gone;
    }
    bool lacking = false;
    auto const handle = files.open(file, lacking);
    if (!handle) return lacking ? Got::lacking : Got::gone;
    // Looked at again afterwards: it may have been written to meanwhile.
    bool const read = read_apart(handle->fd, offset, chunks.count(), length, spacing, out);
    return read && OpenFiles::unchanged(*handle, file) ? Got::bytes : Got::gone;
}

Got read_draft(Draft &draft, std::uint32_t first, std::vector<std::uint32_t> const &lengths, Spacing spacing,
               std::uint8_t *out) {
    bool read = false;
    draft.read(first, [&](int fd, std::uint64_t offset_bytes) {
        read = read_apart(
            fd, offset_bytes, static_cast<std::uint32_t>(lengths.size()), [&](std::uint32_t i) { return lengths[i]; },
            spacing, out + spacing.lead);
    });
    return read ? Got::bytes : Got::gone;
}

bool OpenFiles::unchanged(Handle const &handle, SharedFile const &file) {
    struct stat st;
    // A file without a name was deleted or replaced: its owner wants the room back.
    if (::fstat(handle.fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink == 0) return false;
#ifdef __APPLE__
    auto const &mtime = st.st_mtimespec;
#else
    auto const &mtime = st.st_mtim;
#endif
    return static_cast<std::uint64_t>(st.st_size) == file.size &&
           std::int64_t{mtime.tv_sec} * 1'000'000'000 + mtime.tv_nsec == file.mtime_ns;
}

OpenFiles::Handle::~Handle() { ::close(fd); }

std::shared_ptr<OpenFiles::Handle> OpenFiles::open(SharedFile const &file, bool &lacking) {
    lacking = false;
    std::shared_ptr<Handle> handle;
    {
        std::lock_guard lock(mutex_);
        for (auto it = entries_.begin(); it != entries_.end(); ++it) {
            if (it->path == file.path) {
                handle = it->handle;
                it->used_ns = now_ns();
                entries_.splice(entries_.begin(), entries_, it);
                break;
            }
        }
    }
    if (handle && unchanged(*handle, file)) return handle;
    // A stale descriptor may be of a file that was replaced: look at the path once more before giving up.
    int const fd = ::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        lacking = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EINTR;
        return nullptr;
    }
    handle = std::make_shared<Handle>(fd);
    if (!unchanged(*handle, file)) return nullptr;
    std::lock_guard lock(mutex_);
    entries_.remove_if([&](Entry const &entry) { return entry.path == file.path; });
    entries_.push_front({file.path, handle, now_ns()});
    if (entries_.size() > max_open_files) entries_.pop_back();
    return handle;
}

void OpenFiles::close_idle() {
    std::lock_guard lock(mutex_);
    auto const before = now_ns() - idle_ns;
    while (!entries_.empty() && entries_.back().used_ns < before) entries_.pop_back();
}

}  // namespace zest

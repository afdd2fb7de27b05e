// Reads what is offered, off the network thread: a page that is not in memory must not stall the others.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "draft.hpp"
#include "store.hpp"
#include "workers.hpp"

namespace zest {

// Open files of what is offered, by path. A descriptor is kept for a short while only, and its file is
// compared with its record at each use: bytes of a file that changed are never served.
class OpenFiles {
public:
    struct Handle {
        explicit Handle(int descriptor) : fd(descriptor) {}
        ~Handle();
        Handle(Handle const &) = delete;
        Handle &operator=(Handle const &) = delete;
        int fd;
    };
    // Nothing when the file vanished, cannot be read, or is not what it was; and when this process lacks what it takes
    // to open it, which says nothing about the file: then `lacking` is set.
    std::shared_ptr<Handle> open(SharedFile const &file, bool &lacking);
    void close_idle();

    // Whether an open file is still what was recorded.
    static bool unchanged(Handle const &handle, SharedFile const &file);

private:
    struct Entry {
        std::string path;
        std::shared_ptr<Handle> handle;
        std::int64_t used_ns;
    };
    std::mutex mutex_;
    std::list<Entry> entries_;  // the latest used first
};

enum class Got {
    bytes,
    gone,    // the file is not what was offered, or the transfer was closed
    lacking  // this process lacks what it takes, which says nothing about the file
};
// Bytes that are left free: before the first chunk, before each, and behind each.
struct Spacing {
    std::size_t lead;
    std::size_t header;
    std::size_t tail;
};
// Read a run of chunks, at most max_read_chunks, to `out`.
constexpr std::uint32_t max_read_chunks = 128;
Got read_chunks(OpenFiles &files, SharedFile const &file, ChunkSpan chunks, Spacing spacing, std::uint8_t *out);
// The same of chunks that have come, counted from the draft's first, with their lengths.
Got read_draft(Draft &draft, std::uint32_t first, std::vector<std::uint32_t> const &lengths, Spacing spacing,
               std::uint8_t *out);

struct ReaderPool : Workers {
    OpenFiles files;
};

}  // namespace zest

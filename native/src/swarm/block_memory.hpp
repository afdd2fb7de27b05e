// Memory for what is read and sent. Fresh memory costs the kernel a fault and a clearing for each page of 4 KiB, a
// tenth of all that sending from the page cache costs: so a few large blocks are kept and used again.
#pragma once

#include <cstddef>
#include <memory>

namespace zest {

struct BlockMemory {
    bool kept = false;  // of the size that is used again
    void operator()(char *data) const noexcept;
};

// Blocks of up to this size are kept: the largest batch that is read (bandwidth_scheduler.hpp), with its headers.
constexpr std::size_t large_block_bytes = 640 * 1024;

using BlockBytes = std::unique_ptr<char[], BlockMemory>;

// Not cleared. Throws std::bad_alloc. From any thread.
BlockBytes block_bytes(std::size_t bytes);

// Gives back what is kept, if none of it was used since the last call.
void forget_idle_blocks() noexcept;

}  // namespace zest

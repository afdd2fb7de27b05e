#include "block_memory.hpp"

#include <array>
#include <mutex>

namespace zest {
namespace {

// Smaller blocks are few, or small enough for malloc.
constexpr std::size_t least_bytes = 128 * 1024;

// Of the whole process, as memory is. Never destroyed: the last block may go when the process does. The lock is only
// tried: in a child it may have been taken for good when the parent forked.
struct Spare {
    std::mutex mutex;
    std::array<char *, 16> blocks{};
    std::size_t count = 0;
    bool used = false;  // since it was last looked whether there is anything to do
};

using Lock = std::unique_lock<std::mutex>;

Spare &spare() {
    static auto *const it = new Spare;
    return *it;
}

}  // namespace

BlockBytes block_bytes(std::size_t bytes) {
    if (bytes < least_bytes || bytes > large_block_bytes) return {new char[bytes], BlockMemory{false}};
    auto &here = spare();
    {
        Lock const lock(here.mutex, std::try_to_lock);
        if (lock && here.count) return {here.blocks[--here.count], BlockMemory{true}};
    }
    return {new char[large_block_bytes], BlockMemory{true}};
}

void BlockMemory::operator()(char *data) const noexcept {
    if (kept) {
        auto &here = spare();
        Lock const lock(here.mutex, std::try_to_lock);
        if (lock && here.count < here.blocks.size()) {
            here.used = true;
            here.blocks[here.count++] = data;
            return;
        }
    }
    delete[] data;
}

void forget_idle_blocks() noexcept {
    auto &here = spare();
    Lock const lock(here.mutex, std::try_to_lock);
    if (!lock) return;
    if (!here.used)
        while (here.count) delete[] here.blocks[--here.count];
    here.used = false;
}

}  // namespace zest

#include "draft.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>

#include "zest_codec.h"

namespace zest {

Draft::Draft(int fd, std::uint64_t offset_bytes, std::uint64_t size_bytes, Hash const &of_xorb, ChunkSpan to_come)
    : xorb(of_xorb), chunks(to_come), fd_(fd), offset_bytes_(offset_bytes), size_bytes_(size_bytes) {
    hashes_.reserve(to_come.count());
    lengths_.reserve(to_come.count());
    offsets_.reserve(to_come.count());
}

Draft::~Draft() { close(); }

// Each chunk that is still to come has a byte at least.
bool Draft::fits(std::uint32_t const *lengths, std::uint32_t count) const {
    auto const left = chunks.count() - static_cast<std::uint32_t>(lengths_.size());
    auto const bytes = std::accumulate(lengths, lengths + count, bytes_);
    return !ended_ && count <= left && bytes <= size_bytes_ && (count < left || bytes == size_bytes_) &&
           std::all_of(lengths, lengths + count,
                       [](std::uint32_t length) { return length != 0 && length <= wire::max_chunk_bytes; });
}

void Draft::keep(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        auto &hash = hashes_.emplace_back();
        std::copy_n(hashes + hash.size() * i, hash.size(), hash.begin());
        offsets_.push_back(bytes_);
        lengths_.push_back(lengths[i]);
        bytes_ += lengths[i];
    }
}

Draft::Written Draft::write(Bytes data, int &error_number) {
    auto const length = static_cast<std::uint32_t>(data.size);
    std::uint64_t at;
    {
        std::lock_guard lock(mutex_);
        if (closing_ || ended_) return Written::closed;
        if (data.size > wire::max_chunk_bytes || !fits(&length, 1)) return Written::wrong;
        at = offset_bytes_ + bytes_;
    }
    Hash hash;
    zest_chunk_hash(data.data, data.size, hash.data());
    {
        std::shared_lock lock(descriptor_);
        if (closing_) return Written::closed;
        while (data.size > 0) {
            auto const n = ::pwrite(fd_, data.data, data.size, static_cast<off_t>(at));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                error_number = n == 0 ? ENOSPC : errno;
                return Written::failed;
            }
            at += static_cast<std::uint64_t>(n);
            data = {data.data + n, data.size - static_cast<std::size_t>(n)};
        }
    }
    std::lock_guard lock(mutex_);
    keep(hash.data(), &length, 1);
    return Written::yes;
}

bool Draft::add(std::uint8_t const *hashes, std::uint32_t const *lengths, std::uint32_t count) {
    std::lock_guard lock(mutex_);
    if (!fits(lengths, count)) return false;
    keep(hashes, lengths, count);
    return true;
}

void Draft::end() {
    std::lock_guard lock(mutex_);
    ended_ = true;
}

std::uint32_t Draft::count() const {
    std::lock_guard lock(mutex_);
    return static_cast<std::uint32_t>(lengths_.size());
}

std::uint64_t Draft::bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
}

bool Draft::complete() const { return count() == chunks.count(); }

void Draft::copy(ChunkSpan come, std::uint8_t *hashes, std::uint32_t *lengths) const {
    std::lock_guard lock(mutex_);
    for (auto i = come.first; i < come.end; ++i) {
        if (hashes) hashes = std::copy(hashes_[i].begin(), hashes_[i].end(), hashes);
        *lengths++ = lengths_[i];
    }
}

bool Draft::read(std::uint32_t come, std::function<void(int fd, std::uint64_t offset_bytes)> const &f) {
    std::uint64_t at;
    {
        std::lock_guard lock(mutex_);
        at = offset_bytes_ + offsets_[come];
    }
    std::shared_lock lock(descriptor_);
    if (closing_) return false;
    f(fd_, at);
    return true;
}

void Draft::close() {
    closing_ = true;
    end();
    std::unique_lock lock(descriptor_);
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

void Drafts::offer(DraftPtr draft) {
    std::lock_guard lock(mutex_);
    auto const xorb = draft->xorb;
    drafts_.emplace(xorb, std::move(draft));
}

void Drafts::withdraw(Draft const &draft) {
    std::lock_guard lock(mutex_);
    auto const [first, end] = drafts_.equal_range(draft.xorb);
    auto const at = std::find_if(first, end, [&](auto const &entry) { return entry.second.get() == &draft; });
    if (at != end) drafts_.erase(at);
}

DraftPtr Drafts::find(Hash const &xorb, std::uint32_t chunk) const {
    std::lock_guard lock(mutex_);
    auto const [first, end] = drafts_.equal_range(xorb);
    for (auto at = first; at != end; ++at) {
        auto const &draft = at->second;
        if (draft->chunks.first <= chunk && chunk < draft->chunks.end && !(draft->ended() && !draft->complete()))
            return draft;
    }
    return nullptr;
}

}  // namespace zest

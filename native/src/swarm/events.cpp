#include "events.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace zest {

Events::Events() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Events::~Events() { ::close(fd_); }

void Events::push(zest_event event, std::vector<std::uint8_t> payload) {
    std::lock_guard lock(mutex_);
    push_entry({event, std::move(payload), nullptr, nullptr});
}

void Events::push_entry(Entry entry) {
    entry.event.payload_size = static_cast<std::uint32_t>(entry.payload.size());
    bool const first = queue_.empty();
    queue_.push_back(std::move(entry));
    if (first) {
        std::uint64_t const one = 1;
        // The counter cannot overflow: the reader resets it whenever it finds the queue empty.
        [[maybe_unused]] auto const n = ::write(fd_, &one, sizeof one);
    }
}

void Events::add_ranges(std::shared_ptr<PendingRanges> const &pending, std::uint32_t chunks,
                        std::vector<ChunkSpan> const &ranges) {
    std::lock_guard lock(mutex_);
    for (auto const range : ranges)
        if (pending->ranges.run_count() < wire::max_have_ranges) pending->ranges.add(range);
    pending->chunks = chunks;
}

void Events::push_ranges(zest_event event, std::shared_ptr<PendingRanges> const &pending) {
    std::lock_guard lock(mutex_);
    if (!std::exchange(pending->waits, true)) push_entry({event, {}, pending, nullptr});
}

void Events::push_latest(zest_event event, std::shared_ptr<PendingLatest> const &pending,
                         std::vector<std::uint8_t> payload) {
    std::lock_guard lock(mutex_);
    pending->event = event;
    pending->payload = std::move(payload);
    if (!std::exchange(pending->waits, true)) push_entry({event, {}, nullptr, pending});
}

void Events::push(zest_event event, std::string_view payload) {
    push(event, std::vector<std::uint8_t>(payload.begin(), payload.end()));
}

int Events::next(zest_event *event, std::uint8_t *payload, std::size_t capacity) {
    std::lock_guard lock(mutex_);
    if (queue_.empty()) {
        std::uint64_t count;
        [[maybe_unused]] auto const n = ::read(fd_, &count, sizeof count);
        return 0;
    }
    auto &entry = queue_.front();
    if (auto const pending = std::exchange(entry.pending, nullptr)) {
        auto const ranges = pending->ranges.runs();
        entry.payload.resize(sizeof(ChunkSpan) * ranges.size());
        if (!ranges.empty()) std::memcpy(entry.payload.data(), ranges.data(), entry.payload.size());
        entry.event.payload_size = static_cast<std::uint32_t>(entry.payload.size());
        entry.event.count = pending->chunks;
        *pending = {};
    }
    if (auto const latest = std::exchange(entry.latest, nullptr)) {
        entry.event = latest->event;
        entry.payload = std::move(latest->payload);
        entry.event.payload_size = static_cast<std::uint32_t>(entry.payload.size());
        *latest = {};
    }
    *event = entry.event;
    if (entry.payload.size() > capacity) return -1;
    if (!entry.payload.empty()) std::memcpy(payload, entry.payload.data(), entry.payload.size());
    queue_.pop_front();
    return 1;
}

}  // namespace zest

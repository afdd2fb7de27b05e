// What happens in the session, in order, for whoever asks: a queue without loss that an eventfd announces.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "chunk_set.hpp"
#include "zest_swarm.h"

namespace zest {

// Chunk ranges that somebody is to be told of, and has not asked about yet: what comes meanwhile is added, so that
// one event waits however much comes.
struct PendingRanges {
    ChunkSet ranges;
    std::uint32_t chunks = 0;  // of the object
    bool waits = false;        // an event is in the queue
};

// The latest of something that somebody says again and again: one event waits, with what was said last.
struct PendingLatest {
    zest_event event{};
    std::vector<std::uint8_t> payload;
    bool waits = false;
};

class Events {
public:
    Events();
    ~Events();
    Events(Events const &) = delete;
    Events &operator=(Events const &) = delete;

    int fd() const noexcept { return fd_; }

    void push(zest_event event, std::vector<std::uint8_t> payload = {});
    void push(zest_event event, std::string_view payload);
    // Ranges for the one event that they wait for. What exceeds the limit of a message is dropped.
    void add_ranges(std::shared_ptr<PendingRanges> const &pending, std::uint32_t chunks,
                    std::vector<ChunkSpan> const &ranges);
    // That event; nothing if it waits already.
    void push_ranges(zest_event event, std::shared_ptr<PendingRanges> const &pending);
    // In place of what waits already.
    void push_latest(zest_event event, std::shared_ptr<PendingLatest> const &pending,
                     std::vector<std::uint8_t> payload);
    // Whether such an event waits.
    template <typename Pending>
    bool waits(Pending const &pending) {
        std::lock_guard lock(mutex_);
        return pending.waits;
    }
    // As zest_session_next.
    int next(zest_event *event, std::uint8_t *payload, std::size_t capacity);

private:
    struct Entry {
        zest_event event;
        std::vector<std::uint8_t> payload;
        std::shared_ptr<PendingRanges> pending;
        std::shared_ptr<PendingLatest> latest;
    };
    void push_entry(Entry entry);
    std::mutex mutex_;
    std::deque<Entry> queue_;
    int fd_;
};

}  // namespace zest

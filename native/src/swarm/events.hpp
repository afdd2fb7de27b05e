// What happens in the session, in order, for whoever asks: a queue without loss that an eventfd announces.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string_view>
#include <vector>

#include "zest_swarm.h"

namespace zest {

class Events {
public:
    Events();
    ~Events();
    Events(Events const &) = delete;
    Events &operator=(Events const &) = delete;

    int fd() const noexcept { return fd_; }

    void push(zest_event event, std::vector<std::uint8_t> payload = {});
    void push(zest_event event, std::string_view payload);
    // As zest_session_next.
    int next(zest_event *event, std::uint8_t *payload, std::size_t capacity);

private:
    struct Entry {
        zest_event event;
        std::vector<std::uint8_t> payload;
    };
    std::mutex mutex_;
    std::deque<Entry> queue_;
    int fd_;
};

}  // namespace zest

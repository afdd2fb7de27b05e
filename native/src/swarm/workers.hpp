// A few threads that run what they are given, in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace zest {

class Workers {
public:
    Workers() = default;
    ~Workers();
    void start(unsigned threads);
    void submit(std::function<void()> job);
    // What has not begun is dropped.
    void stop();

private:
    void run();
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> jobs_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace zest

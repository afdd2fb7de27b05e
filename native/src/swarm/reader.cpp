#include "reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace

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

void ReaderPool::start(unsigned threads) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

ReaderPool::~ReaderPool() { stop(); }

void ReaderPool::stop() {
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
        jobs_.clear();
    }
    wake_.notify_all();
    for (auto &thread : threads_)
        if (thread.joinable()) thread.join();
}

void ReaderPool::submit(std::function<void()> job) {
    {
        std::lock_guard lock(mutex_);
        if (stopping_) return;
        jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
}

void ReaderPool::run() {
    for (;;) {
        std::function<void()> job;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
            if (stopping_) return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
        }
        try {
            job();
        } catch (...) {
            // A lack of memory: what was to be read is not answered; the process goes on.
        }
    }
}

}  // namespace zest

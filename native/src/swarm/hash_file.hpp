// Memory for what is seldom looked at: a file without a name, which vanishes with the process.
//
// It is read with pread and not mapped: so the pages are the system's and not this process's, each look at the disk can
// be seen in the code (and kept off the network thread), and a disk that fails is an answer instead of a signal.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "wire.hpp"

namespace zest {

// Every method may be called from any thread.
class HashFile : public std::enable_shared_from_this<HashFile> {
public:
    // The directory is looked at when something is to be kept. "": nothing is.
    explicit HashFile(std::string directory) : directory_(std::move(directory)) {}
    ~HashFile();
    HashFile(HashFile const &) = delete;
    HashFile &operator=(HashFile const &) = delete;

    // Bytes in the file, which are given back with this.
    class Run {
    public:
        Run(std::shared_ptr<HashFile> file, std::uint64_t offset, std::size_t size)
            : file_(std::move(file)), offset_(offset), size_(size) {}
        ~Run();
        Run(Run const &) = delete;
        Run &operator=(Run const &) = delete;
        // From `first` on, inside of the run. False: the disk does not give them.
        bool read(std::size_t first, std::uint8_t *out, std::size_t size) const;

    private:
        std::shared_ptr<HashFile> file_;
        std::uint64_t offset_;
        std::size_t size_;
    };

    // Nothing when there is no such file, or no room in it.
    std::unique_ptr<Run> keep(Bytes bytes);

private:
    bool open_locked();
    void free(std::uint64_t offset, std::size_t size);

    std::string const directory_;
    std::mutex mutex_;
    int fd_ = -1;  // set once
    std::uint64_t end_ = 0;
    std::uint64_t runs_ = 0;
};

}  // namespace zest

// What a peer gives of one piece, on its way into the file.
//
// Chunks are written by another thread, since the disk takes as long as the network, and those that come together in
// one go: for the page cache a chunk by itself, which begins and ends within pages, is twice the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "block_memory.hpp"
#include "events.hpp"
#include "link.hpp"
#include "transfer.hpp"
#include "workers.hpp"

namespace zest {

// The thread that writes. Who brings more than the disk takes has to wait.
class WriteQueue {
public:
    void start() { workers_.start(1); }
    void stop() { workers_.stop(); }
    // In order.
    void submit(std::size_t bytes, std::function<void()> job);

private:
    std::mutex mutex_;
    std::condition_variable written_;
    std::size_t waiting_bytes_ = 0;
    Workers workers_;
};

// Used on the network thread only, but for what is said.
class PieceWriter final : public std::enable_shared_from_this<PieceWriter> {
public:
    // first_chunk: of the piece.
    PieceWriter(WriteQueue &queue, Events &events, Post const &post, std::shared_ptr<Transfer> transfer,
                std::uint32_t first_chunk)
        : queue_(queue),
          events_(events),
          post_(post),
          transfer_(std::move(transfer)),
          written_{first_chunk, first_chunk} {}

    // A chunk that was proved. It is written soon, with those that follow it at once.
    void add(std::uint32_t chunk, Bytes data);
    // Something could not be written: the piece is to be ended.
    bool failed() const noexcept { return failed_; }
    // Push the event when all is written. If it was not, the event says that instead.
    void end(zest_event event);

private:
    struct Run {
        BlockBytes bytes;
        std::size_t size = 0;
        ChunkSpan chunks;
    };
    void flush();
    void write(Run &run);  // on the queue's thread

    WriteQueue &queue_;
    Events &events_;
    Post const &post_;
    std::shared_ptr<Transfer> const transfer_;
    std::shared_ptr<Run> run_;  // that is not submitted
    bool posted_ = false;       // a flush
    std::atomic<bool> failed_{false};
    // On the queue's thread:
    int error_number_ = 0;  // why; 0: the transfer was closed
    ChunkSpan written_;     // from the first of the piece on, without a gap
};

}  // namespace zest

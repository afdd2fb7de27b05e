#include "piece_writer.hpp"

#include <cstring>
#include <utility>

namespace zest {
namespace {

// Blocks that wait for the disk; as much as is kept to be used again (block_memory.cpp), in all pieces.
constexpr std::size_t most_waiting_bytes = 16 * large_block_bytes;

}  // namespace

void WriteQueue::submit(std::size_t bytes, std::function<void()> job) {
    {
        std::unique_lock lock(mutex_);
        written_.wait(lock, [this] { return waiting_bytes_ < most_waiting_bytes; });
        waiting_bytes_ += bytes;
    }
    auto const written = [this, bytes] {
        {
            std::lock_guard lock(mutex_);
            waiting_bytes_ -= bytes;
        }
        written_.notify_one();
    };
    workers_.submit([job = std::move(job), written] {
        try {
            job();
        } catch (...) {
            written();
            throw;
        }
        written();
    });
}

void PieceWriter::add(std::uint32_t chunk, Bytes data) {
    if (run_ && (chunk != run_->chunks.end || run_->size + data.size > large_block_bytes)) flush();
    if (!run_) run_ = std::make_shared<Run>(Run{block_bytes(large_block_bytes), 0, {chunk, chunk}});
    std::memcpy(run_->bytes.get() + run_->size, data.data, data.size);
    run_->size += data.size;
    ++run_->chunks.end;
    // Behind the messages that have come already.
    if (!std::exchange(posted_, true))
        post_([self = shared_from_this()] {
            self->posted_ = false;
            self->flush();
        });
}

void PieceWriter::flush() {
    auto const run = std::exchange(run_, nullptr);
    if (run) queue_.submit(run->size, [self = shared_from_this(), run] { self->write(*run); });
}

void PieceWriter::write(Run &run) {
    if (failed_) return;
    Bytes const bytes{reinterpret_cast<std::uint8_t const *>(run.bytes.get()), run.size};
    if (transfer_->write(run.chunks, bytes, error_number_) != Transfer::Written::yes) failed_ = true;
    if (run.chunks.first == written_.end) written_.end = run.chunks.end;
}

void PieceWriter::end(zest_event event) {
    flush();
    queue_.submit(0, [self = shared_from_this(), event]() mutable {
        if (self->failed_) {
            event.status = self->error_number_ ? ZEST_OUTCOME_IO : ZEST_OUTCOME_CANCELLED;
            event.count = self->written_.count();
            event.bytes = static_cast<std::uint64_t>(self->error_number_);
        }
        self->events_.push(event);
    });
}

}  // namespace zest

// The streaming decoder: packed chunks in, proved chunks at their places in a file out.
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "chunk_decoder.h"
#include "error.h"

namespace {

constexpr uint64_t file_offset_max = uint64_t{1} << 62;

// Decoded chunks are written together, up to so many bytes: the file system looks up a page for each write and not for
// each page then (0.17 s of processor time a gigabyte instead of 0.30). More of them would not stay in the cache.
constexpr size_t run_size = 512 * 1024;
constexpr size_t run_chunks_max = 64;

// `pieces` is used up.
void write_all(int fd, iovec *pieces, size_t count, uint64_t offset) {
    while (count != 0) {
        const ssize_t written = ::pwritev(fd, pieces, static_cast<int>(count), static_cast<off_t>(offset));
        if (written < 0) {
            if (errno == EINTR) continue;
            zest::throw_system("cannot write a chunk to the file", errno);
        }
        // A regular file never takes 0 of n bytes; anything else that does would loop for ever.
        if (written == 0) zest::throw_system("cannot write a chunk to the file", ENOSPC);
        offset += static_cast<uint64_t>(written);
        size_t left = static_cast<size_t>(written);
        while (count != 0 && left >= pieces->iov_len) {
            left -= pieces->iov_len;
            ++pieces;
            --count;
        }
        if (left != 0) {
            pieces->iov_base = static_cast<uint8_t *>(pieces->iov_base) + left;
            pieces->iov_len -= left;
        }
    }
}

}  // namespace

struct zest_unpacker {
public:
    zest_unpacker(int fd, uint32_t first, uint32_t end, const zest_placement *placements, size_t placement_count,
                  const uint8_t *expected)
        : fd_(fd), first_(first), end_(end) {
        if (first >= end || end > ZEST_XORB_MAX_CHUNKS) {
            throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT, "chunk range [%u, %u) is empty or beyond %d", first,
                                                 end, ZEST_XORB_MAX_CHUNKS));
        }
        const size_t count = end - first;
        waiting_.reserve(placement_count);
        for (size_t i = 0; i < placement_count; ++i) {
            const zest_placement &place = placements[i];
            if (place.start < first || place.start >= place.end || place.end > end) {
                throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT,
                                                     "placement [%u, %u) is empty or outside [%u, %u)", place.start,
                                                     place.end, first, end));
            }
            if (place.file_offset > file_offset_max) {
                throw zest::Failure(zest::make_error(ZEST_BAD_ARGUMENT, "a placement lies beyond 2^62 bytes"));
            }
            waiting_.push_back(place);
        }
        // Taken from the back, so that the next one to start is always the last.
        std::sort(waiting_.begin(), waiting_.end(),
                  [](const zest_placement &a, const zest_placement &b) { return a.start > b.start; });
        if (expected != nullptr) expected_.assign(expected, expected + count * ZEST_HASH_SIZE);
        // None of it moves while it grows.
        hashes_.reserve(count * ZEST_HASH_SIZE);
        lengths_.reserve(count);
        state_.hashes = hashes_.data();
        state_.lengths = lengths_.data();
    }

    zest_status run(zest_error *err, const uint8_t *data, size_t size, bool finish) noexcept {
        if (failed_.status != ZEST_OK) {
            *err = failed_;
            return err->status;
        }
        const zest_status status = zest::guard(err, [&] { finish ? check_end() : feed(data, size); });
        if (status != ZEST_OK) failed_ = *err;
        return status;
    }

    uint32_t limit(uint32_t end) {
        const uint32_t allowed = std::max(first_ + state_.chunks_done, end);
        if (allowed < end_) {
            end_ = allowed;
            limited_ = true;
        }
        return end_;
    }

    const zest_unpacked &unpacked() const { return state_; }

private:
    // The next chunk to be decoded. Between calls all that was decoded is written.
    uint32_t index() const { return first_ + static_cast<uint32_t>(lengths_.size()); }
    bool done() const { return index() == end_; }

    void feed(const uint8_t *data, size_t size) {
        try {
            decode(data, size);
        } catch (const zest::Failure &) {
            // What is before the failure is right, and stays.
            if (!failed_to_write_) write_run();
            throw;
        }
    }

    void decode(const uint8_t *data, size_t size) {
        while (size != 0 && !done()) {
            if (pending_size_ != 0) {
                // A chunk that an earlier feed began: complete it in our own buffer.
                const size_t taken = std::min(size, wanted() - pending_size_);
                std::memcpy(pending_.get() + pending_size_, data, taken);
                pending_size_ += taken;
                data += taken;
                size -= taken;
                if (pending_size_ == ZEST_CHUNK_HEADER_SIZE) parse(pending_.get());
                if (pending_size_ < wanted()) continue;
                pending_size_ = 0;
                finish_chunk(pending_.get());
                continue;
            }
            if (size >= ZEST_CHUNK_HEADER_SIZE) {
                parse(data);
                const size_t whole = ZEST_CHUNK_HEADER_SIZE + header_.packed_size;
                if (size >= whole) {
                    finish_chunk(data);
                    data += whole;
                    size -= whole;
                    continue;
                }
            }
            write_run();  // which may hold what lies in pending_
            if (!pending_) pending_.reset(new uint8_t[ZEST_CHUNK_HEADER_SIZE + ZEST_CHUNK_PACKED_MAX]);
            std::memcpy(pending_.get(), data, size);
            pending_size_ = size;
            return;
        }
        write_run();
        take_trailer(data, size);
    }

    // Bytes that the chunk in pending_ needs, as far as known: its header, then all of it.
    size_t wanted() const {
        if (pending_size_ < ZEST_CHUNK_HEADER_SIZE) return ZEST_CHUNK_HEADER_SIZE;
        return ZEST_CHUNK_HEADER_SIZE + header_.packed_size;
    }

    void parse(const uint8_t *bytes) {
        if (zest::begins_footer(bytes, ZEST_CHUNK_HEADER_SIZE)) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the xorb's footer begins after %u of %u chunks",
                                                 index() - first_, end_ - first_));
        }
        header_ = zest::parse_header(bytes, index());
    }

    // `bytes` stay until the run is written.
    void finish_chunk(const uint8_t *bytes) {
        const uint8_t *content = decoded(bytes + ZEST_CHUNK_HEADER_SIZE);
        const zest::Hash hash = zest::chunk_hash(content, header_.unpacked_size);
        if (!expected_.empty()) {
            const uint8_t *wanted = expected_.data() + size_t{index() - first_} * ZEST_HASH_SIZE;
            if (std::memcmp(wanted, hash.data(), hash.size()) != 0) {
                zest_error error = zest::make_error(ZEST_MISMATCH, "chunk %u does not have the expected hash", index());
                std::memcpy(error.wanted, wanted, ZEST_HASH_SIZE);
                std::memcpy(error.got, hash.data(), ZEST_HASH_SIZE);
                throw zest::Failure(error);
            }
        }
        add_to_run(content);
        hashes_.insert(hashes_.end(), hash.begin(), hash.end());
        lengths_.push_back(header_.unpacked_size);
        if (is_edge(index())) write_run();
    }

    // In the run's buffer behind what is there, or where it came if it is stored as it is.
    const uint8_t *decoded(const uint8_t *payload) {
        while (!waiting_.empty() && waiting_.back().start == index()) {
            write_run();
            active_.push_back(waiting_.back());
            waiting_.pop_back();
        }
        if (run_count_ == run_chunks_max) write_run();
        if (header_.scheme == ZEST_SCHEME_NONE) return payload;
        if (run_used_ + header_.unpacked_size > run_size) write_run();
        // Not value-initialised: it is always filled before it is read. No feed leaves anything in it, so that one is
        // enough for all that a thread decodes: small files would spend their time with getting new memory.
        thread_local const std::unique_ptr<uint8_t[]> run(new uint8_t[run_size]);
        run_ = run.get();
        uint8_t *out = run_ + run_used_;
        decoder_.decode_into(header_, payload, index(), out);
        return out;
    }

    void add_to_run(const uint8_t *content) {
        iovec &piece = pieces_[run_count_++];
        piece.iov_base = const_cast<uint8_t *>(content);  // never written to
        piece.iov_len = header_.unpacked_size;
        run_bytes_ += header_.unpacked_size;
        if (header_.scheme != ZEST_SCHEME_NONE) run_used_ += header_.unpacked_size;
    }

    // Some placement ends before this chunk.
    bool is_edge(uint32_t chunk) const {
        return std::any_of(active_.begin(), active_.end(), [&](const zest_placement &one) { return one.end == chunk; });
    }

    // To all places: they are the same ones for all chunks of a run.
    void write_run() {
        for (zest_placement &target : active_) {
            if (fd_ >= 0 && run_count_ != 0) {
                std::array<iovec, run_chunks_max> pieces = pieces_;
                failed_to_write_ = true;
                write_all(fd_, pieces.data(), run_count_, target.file_offset);
                failed_to_write_ = false;
                state_.bytes_written += run_bytes_;
            }
            target.file_offset += run_bytes_;
        }
        active_.erase(std::remove_if(active_.begin(), active_.end(),
                                     [&](const zest_placement &one) { return one.end <= index(); }),
                      active_.end());
        state_.chunks_done += static_cast<uint32_t>(run_count_);
        run_count_ = run_used_ = run_bytes_ = 0;
    }

    // Only the first bytes matter: they tell a footer from rubbish.
    void take_trailer(const uint8_t *data, size_t size) {
        const size_t taken = std::min(size, sizeof trailer_ - trailer_size_);
        std::memcpy(trailer_ + trailer_size_, data, taken);
        trailer_size_ += taken;
    }

    void check_end() const {
        if (!done()) {
            throw zest::Failure(zest::make_error(ZEST_MALFORMED, "the bytes end after %u of %u chunks",
                                                 state_.chunks_done, end_ - first_));
        }
        // What follows a limit are the chunks that are not wanted any more.
        if (!limited_ && trailer_size_ != 0 && !zest::begins_footer(trailer_, trailer_size_)) {
            throw zest::Failure(zest::make_error(
                ZEST_MALFORMED, "bytes that are no footer follow the last of %u chunks", end_ - first_));
        }
    }

    const int fd_;
    const uint32_t first_;
    uint32_t end_;
    bool limited_ = false;
    std::vector<zest_placement> waiting_;
    std::vector<zest_placement> active_;  // file_offset: where the next chunk goes
    std::vector<uint8_t> expected_;
    std::vector<uint8_t> hashes_;
    std::vector<uint32_t> lengths_;
    zest_unpacked state_{};
    // Chunks that are decoded and proved, but not written.
    std::array<iovec, run_chunks_max> pieces_{};
    size_t run_count_ = 0;
    size_t run_bytes_ = 0;
    uint8_t *run_ = nullptr;  // where they are, but for those that came as they are
    size_t run_used_ = 0;
    bool failed_to_write_ = false;
    zest::ChunkDecoder decoder_;
    zest::ChunkHeader header_{};
    std::unique_ptr<uint8_t[]> pending_;
    size_t pending_size_ = 0;
    uint8_t trailer_[ZEST_CHUNK_HEADER_SIZE] = {};
    size_t trailer_size_ = 0;
    zest_error failed_{};
};

extern "C" {

zest_unpacker *zest_unpacker_new(int32_t fd, uint32_t first, uint32_t end, const zest_placement *placements,
                                 size_t placement_count, const uint8_t *expected, zest_error *err) {
    zest_unpacker *made = nullptr;
    zest::guard(err, [&] { made = new zest_unpacker(fd, first, end, placements, placement_count, expected); });
    return made;
}

void zest_unpacker_free(zest_unpacker *unpacker) { delete unpacker; }

zest_status zest_unpacker_feed(zest_unpacker *unpacker, const uint8_t *data, size_t size, zest_error *err) {
    return unpacker->run(err, data, size, false);
}

zest_status zest_unpacker_finish(zest_unpacker *unpacker, zest_error *err) {
    return unpacker->run(err, nullptr, 0, true);
}

uint32_t zest_unpacker_limit(zest_unpacker *unpacker, uint32_t end) { return unpacker->limit(end); }

const zest_unpacked *zest_unpacker_unpacked(const zest_unpacker *unpacker) { return &unpacker->unpacked(); }
}

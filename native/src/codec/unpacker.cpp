// The streaming decoder: packed chunks in, proved chunks at their places in a file out.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "chunk_decoder.h"
#include "error.h"

namespace {

constexpr uint64_t file_offset_max = uint64_t{1} << 62;

void write_all(int fd, const uint8_t *data, size_t size, uint64_t offset) {
    while (size != 0) {
        const ssize_t written = ::pwrite(fd, data, size, static_cast<off_t>(offset));
        if (written < 0) {
            if (errno == EINTR) continue;
            zest::throw_system("cannot write a chunk to the file", errno);
        }
        // A regular file never takes 0 of n bytes; anything else that does would loop for ever.
        if (written == 0) zest::throw_system("cannot write a chunk to the file", ENOSPC);
        data += written;
        size -= static_cast<size_t>(written);
        offset += static_cast<uint64_t>(written);
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
        hashes_.reserve(count * ZEST_HASH_SIZE);
        lengths_.reserve(count);
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
        const uint32_t allowed = std::max(index(), end);
        if (allowed < end_) {
            end_ = allowed;
            limited_ = true;
        }
        return end_;
    }

    uint32_t chunks_done() const { return static_cast<uint32_t>(lengths_.size()); }
    uint64_t bytes_written() const { return bytes_written_; }
    const uint8_t *hashes() const { return hashes_.data(); }
    const uint32_t *lengths() const { return lengths_.data(); }

private:
    bool done() const { return chunks_done() == end_ - first_; }
    uint32_t index() const { return first_ + chunks_done(); }

    void feed(const uint8_t *data, size_t size) {
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
            if (!pending_) pending_.reset(new uint8_t[ZEST_CHUNK_HEADER_SIZE + ZEST_CHUNK_PACKED_MAX]);
            std::memcpy(pending_.get(), data, size);
            pending_size_ = size;
            return;
        }
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
                                                 chunks_done(), end_ - first_));
        }
        header_ = zest::parse_header(bytes, index());
    }

    void finish_chunk(const uint8_t *bytes) {
        const uint8_t *content = decoder_.decode(header_, bytes + ZEST_CHUNK_HEADER_SIZE, index());
        const zest::Hash hash = zest::chunk_hash(content, header_.unpacked_size);
        if (!expected_.empty()) {
            const uint8_t *wanted = expected_.data() + size_t{chunks_done()} * ZEST_HASH_SIZE;
            if (std::memcmp(wanted, hash.data(), hash.size()) != 0) {
                zest_error error = zest::make_error(ZEST_MISMATCH, "chunk %u does not have the expected hash", index());
                std::memcpy(error.wanted, wanted, ZEST_HASH_SIZE);
                std::memcpy(error.got, hash.data(), ZEST_HASH_SIZE);
                throw zest::Failure(error);
            }
        }
        place(content);
        hashes_.insert(hashes_.end(), hash.begin(), hash.end());
        lengths_.push_back(header_.unpacked_size);
    }

    void place(const uint8_t *content) {
        const uint32_t chunk = index();
        while (!waiting_.empty() && waiting_.back().start == chunk) {
            active_.push_back(waiting_.back());
            waiting_.pop_back();
        }
        for (size_t i = 0; i < active_.size();) {
            zest_placement &target = active_[i];
            if (fd_ >= 0) {
                write_all(fd_, content, header_.unpacked_size, target.file_offset);
                bytes_written_ += header_.unpacked_size;
            }
            target.file_offset += header_.unpacked_size;
            if (target.end == chunk + 1) {
                target = active_.back();
                active_.pop_back();
            } else {
                ++i;
            }
        }
    }

    // Only the first bytes matter: they tell a footer from rubbish.
    void take_trailer(const uint8_t *data, size_t size) {
        const size_t taken = std::min(size, sizeof trailer_ - trailer_size_);
        std::memcpy(trailer_ + trailer_size_, data, taken);
        trailer_size_ += taken;
    }

    void check_end() const {
        if (!done()) {
            throw zest::Failure(
                zest::make_error(ZEST_MALFORMED, "the bytes end after %u of %u chunks", chunks_done(), end_ - first_));
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
    uint64_t bytes_written_ = 0;
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

uint32_t zest_unpacker_chunks_done(const zest_unpacker *unpacker) { return unpacker->chunks_done(); }
uint64_t zest_unpacker_bytes_written(const zest_unpacker *unpacker) { return unpacker->bytes_written(); }
const uint8_t *zest_unpacker_hashes(const zest_unpacker *unpacker) { return unpacker->hashes(); }
const uint32_t *zest_unpacker_lengths(const zest_unpacker *unpacker) { return unpacker->lengths(); }
}

// What this node offers: files, and through their terms the chunks of xorbs, read from where they lie.
//
// Nothing is copied: an entry is a path with the size and the time that it had when its bytes were proved,
// and its manifest. The store finds where the bytes of a hash lie; reader.hpp reads them.
// Every method may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "infohash.hpp"
#include "wire.hpp"

namespace zest {

struct XorbTerm {
    Hash xorb;
    ChunkSpan chunks;
};

// One offered file. Immutable once shared, but for `offered`.
struct SharedFile {
    std::string path;
    std::uint64_t size = 0;
    std::int64_t mtime_ns = 0;
    Hash hash{};
    std::vector<Hash> chunk_hashes;
    std::vector<std::uint64_t> offsets;  // one more than chunks
    std::vector<XorbTerm> terms;
    // Cleared when it is not offered any more, for those who are in the middle of reading it.
    mutable std::atomic<bool> offered{true};

    // Which chunk has this hash. Only BEP XET v1 peers ask so: sorted on the first question.
    std::optional<std::uint32_t> find(Hash const &chunk) const;

    std::uint32_t chunks() const noexcept { return static_cast<std::uint32_t>(chunk_hashes.size()); }
    std::uint32_t length(std::uint32_t chunk) const noexcept {
        return static_cast<std::uint32_t>(offsets[chunk + 1] - offsets[chunk]);
    }

private:
    mutable std::once_flag sorted_;
    mutable std::vector<std::uint32_t> by_hash_;  // chunk numbers in the order of their hashes
};
using SharedFilePtr = std::shared_ptr<SharedFile const>;

// A run of an object's chunks and the file in which it lies.
struct Extent {
    SharedFilePtr file;
    ChunkSpan object;          // chunk numbers of the object asked for
    std::uint32_t file_first;  // chunk number of object.first in the file
};

struct Located {
    std::vector<Extent> extents;  // in order of object chunks, without gaps
};

class Store {
public:
    explicit Store(SwarmNames const &names) : names_(names) {}

    // False when the terms do not add up to the file's chunks.
    bool add(SharedFilePtr file);
    void remove(std::string const &path, Hash const &file_hash);
    // This very record, not one that has taken its place. False when it was not offered any more.
    bool remove(SharedFilePtr const &file);

    bool knows_swarm(InfoHash const &info_hash) const { return find_swarm(info_hash).has_value(); }
    // The object of whose swarm this is the name, if it is offered.
    struct Object {
        Kind kind;
        Hash hash;
    };
    std::optional<Object> find_swarm(InfoHash const &info_hash) const;

    // Where all chunks of the span lie; nothing when one of them is not held.
    std::optional<Located> locate(Kind kind, Hash const &hash, ChunkSpan chunks) const;
    // `likely`: look there first, or nothing. Slow on the first question about a file: not for the network thread.
    std::optional<Located> locate_chunk(Hash const &chunk, SharedFilePtr const &likely) const;
    // Which chunks of the object are held, and how many it has (0: not known, as for a xorb that is held in part).
    struct Holding {
        std::uint32_t chunks = 0;
        std::vector<ChunkSpan> ranges;
    };
    std::optional<Holding> holding(Kind kind, Hash const &hash) const;

    std::uint32_t files() const;
    std::uint32_t xorbs() const;

private:
    struct XorbExtent {
        SharedFilePtr file;
        ChunkSpan chunks;
        std::uint32_t file_first;
    };
    struct Xorb {
        std::vector<XorbExtent> extents;  // sorted by their first chunk; they may overlap
        // How many chunks it has if all are held, found out on the first question; 0: held in part.
        mutable std::atomic<std::uint32_t> whole{unknown};
    };
    static constexpr std::uint32_t unknown = ~std::uint32_t{0};

    void remove_locked(SharedFile const &file);
    std::optional<Located> locate_locked(Kind kind, Hash const &hash, ChunkSpan chunks) const;
    bool proved_whole(Hash const &xorb, std::uint32_t chunks) const;

    SwarmNames const &names_;
    mutable std::shared_mutex mutex_;
    std::unordered_map<Hash, std::vector<SharedFilePtr>, HashOf> files_;
    std::unordered_map<Hash, Xorb, HashOf> xorbs_;
    struct Swarm {
        Object object;
        std::uint32_t users = 0;  // files and terms of files
    };
    void add_swarm(Kind kind, Hash const &hash);
    void remove_swarm(Kind kind, Hash const &hash);
    std::map<InfoHash, Swarm> swarms_;
};

}  // namespace zest

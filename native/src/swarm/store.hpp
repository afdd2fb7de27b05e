// What this node offers: files, and through their terms the chunks of xorbs, read from where they lie.
//
// Nothing is copied: an entry is a manifest and where its bytes lie, which is a path with the size and the time that
// the file had when they were proved, or a transfer that is still being written. The store finds where the bytes of a
// hash lie; reader.hpp reads them.
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

#include "chunk_list.hpp"
#include "infohash.hpp"
#include "transfer.hpp"
#include "wire.hpp"

namespace zest {

struct XorbTerm {
    Hash xorb;
    ChunkSpan chunks;
};

// What HAVE speaks of.
struct Object {
    Kind kind;
    Hash hash;
    friend bool operator==(Object const &a, Object const &b) noexcept { return a.kind == b.kind && a.hash == b.hash; }
};
struct ObjectHash {
    std::size_t operator()(Object const &o) const noexcept {
        return HashOf{}(o.hash) ^ static_cast<std::size_t>(o.kind);
    }
};

// One offered file, or a run of one. Immutable once shared, but for `offered`.
struct SharedFile {
    ChunkListPtr list;
    std::optional<Hash> hash;  // of the file; none for a run, of which only xorbs are offered
    std::vector<XorbTerm> terms;
    // Where the bytes lie: all of them at a path, ...
    std::string path;
    std::uint64_t size = 0;
    std::int64_t mtime_ns = 0;
    // ... or those that are held so far in a file that is being written.
    std::shared_ptr<Transfer> transfer;
    // Cleared when it is not offered any more, for those who are in the middle of reading it.
    mutable std::atomic<bool> offered{true};

    std::uint32_t chunks() const noexcept { return list->count(); }
    // The first run inside `within` that can be read now; an empty one when there is none.
    ChunkSpan first_held(ChunkSpan within) const { return transfer ? transfer->first_held(within) : within; }
    // A chunk that has this hash and can be read. Only BEP XET v1 peers ask so: sorted on the first question. Reads
    // hashes: not for the network thread.
    std::optional<std::uint32_t> find(Hash const &chunk) const;

private:
    struct Named {
        std::uint32_t prefix;  // of the hash: what else has it is rare
        std::uint32_t chunk;
    };
    static std::uint32_t prefix_of(Hash const &hash) noexcept;
    void sort() const;

    mutable std::once_flag sorted_;
    mutable std::vector<Named> by_hash_;  // in the order of prefixes
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

    // In place of what was offered of the same path or transfer. False when the terms do not add up to the chunks.
    bool add(SharedFilePtr file);
    void remove(std::string const &path, Hash const &file_hash);
    void remove(Transfer const &transfer);
    // This very record, not one that has taken its place. False when it was not offered any more.
    bool remove(SharedFilePtr const &file);

    // This node looks for the file: until it is held, that nothing of it is held is an answer.
    void seek(Hash const &file);
    void seek_no_more(Hash const &file);

    bool knows_swarm(InfoHash const &info_hash) const { return find_swarm(info_hash).has_value(); }
    // The object of whose swarm this is the name, if it is offered or sought.
    std::optional<Object> find_swarm(InfoHash const &info_hash) const;

    // Where all chunks of the span lie; nothing when one of them is not held. Parts may lie in different files.
    std::optional<Located> locate(Kind kind, Hash const &hash, ChunkSpan chunks) const;
    // Where the manifest's entries of the span are found, whether or not their chunks are held; of a xorb nothing
    // unless all of it is held.
    std::optional<Located> locate_entries(Kind kind, Hash const &hash, ChunkSpan chunks) const;
    // `likely`: look there first, or nothing. Reads hashes: not for the network thread.
    std::optional<Located> locate_chunk(Hash const &chunk, SharedFilePtr const &likely) const;
    // Which chunks of the object are held, and how many it has (0: not known, as for a xorb that is held in part, and
    // for a file that is only sought).
    struct Holding {
        std::uint32_t chunks = 0;
        std::vector<ChunkSpan> ranges;
        bool unproved = false;  // whether all of a xorb is here will be known when it was tried to prove that
    };
    std::optional<Holding> holding(Kind kind, Hash const &hash) const;
    // Find out how many chunks a xorb has. Reads hashes: not for the network thread.
    void prove(Hash const &xorb);
    // What may be held otherwise since the last call; each at least once. Transfers that were closed are dropped.
    std::vector<Object> take_changes();

    std::uint32_t files() const;
    std::uint32_t xorbs() const;

private:
    // Chunks of an object that a file is made of.
    struct Part {
        SharedFilePtr file;
        ChunkSpan chunks;
        std::uint32_t file_first;
    };
    using Parts = std::vector<Part>;
    struct Xorb {
        Parts parts;  // sorted by their first chunk; they may overlap
        // How many chunks it has, found out on the first question; 0: the parts do not tell. Once proved it is true
        // whatever becomes of the parts.
        std::uint32_t whole = unknown;
        void parts_changed() noexcept {
            if (whole == 0) whole = unknown;
        }
    };
    struct Growing {
        SharedFilePtr file;
        std::uint32_t held;  // as take_changes() has last seen it
    };
    static constexpr std::uint32_t unknown = ~std::uint32_t{0};

    void remove_locked(SharedFile const &file);
    void changed_locked(SharedFile const &file);
    std::optional<Holding> holding_locked(Kind kind, Hash const &hash) const;
    Parts parts_of_file(Hash const &hash) const;
    static std::optional<Located> cover(Parts const &parts, ChunkSpan chunks, bool held);
    static std::uint32_t proved_whole(Hash const &xorb, Parts const &parts);

    SwarmNames const &names_;
    mutable std::shared_mutex mutex_;
    std::unordered_map<Hash, std::vector<SharedFilePtr>, HashOf> files_;  // whole files before growing ones
    std::unordered_map<Hash, Xorb, HashOf> xorbs_;
    struct Swarm {
        Object object;
        std::uint32_t users = 0;  // files and terms of files, and who seeks it
    };
    void add_swarm(Kind kind, Hash const &hash);
    void remove_swarm(Kind kind, Hash const &hash);
    std::map<InfoHash, Swarm> swarms_;
    std::unordered_set<Hash, HashOf> sought_;  // files
    std::vector<Growing> growing_;
    std::vector<Object> changed_;
};

}  // namespace zest

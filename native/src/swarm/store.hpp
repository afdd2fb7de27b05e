// What this node offers: files, and through their terms the chunks of xorbs, read from where they lie.
//
// Nothing is copied: an entry is a path with the size and the time that it had when its bytes were proved,
// and its manifest. The store finds where the bytes of a hash lie; reader.hpp reads them.
// Every method may be called from any thread.
#pragma once

#include "wire.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace zest {

struct XorbTerm {
  Hash xorb;
  ChunkSpan chunks;
};

// One offered file. Immutable once shared.
struct SharedFile {
  std::string path;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  Hash hash{};
  std::vector<Hash> chunk_hashes;
  std::vector<std::uint64_t> offsets; // one more than chunks
  std::vector<XorbTerm> terms;

  std::uint32_t chunks() const noexcept { return static_cast<std::uint32_t>(chunk_hashes.size()); }
  std::uint32_t length(std::uint32_t chunk) const noexcept {
    return static_cast<std::uint32_t>(offsets[chunk + 1] - offsets[chunk]);
  }
};
using SharedFilePtr = std::shared_ptr<SharedFile const>;

// A run of an object's chunks and the file in which it lies.
struct Extent {
  SharedFilePtr file;
  ChunkSpan object;         // chunk numbers of the object asked for
  std::uint32_t file_first; // chunk number of object.first in the file
};

struct Located {
  std::vector<Extent> extents; // in order of object chunks, without gaps
};

class Store {
public:
  // False when the terms do not add up to the file's chunks.
  bool add(SharedFilePtr file);
  void remove(std::string const &path, Hash const &file_hash);

  bool knows_swarm(std::array<std::uint8_t, 20> const &info_hash) const;

  // Where all chunks of the span lie; nothing when one of them is not held.
  std::optional<Located> locate(Kind kind, Hash const &hash, ChunkSpan chunks) const;
  std::optional<Located> locate_chunk(Hash const &chunk) const;
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
  struct ChunkPlace {
    std::uint64_t prefix; // first bytes of the hash
    SharedFile const *file;
    std::uint32_t chunk;
  };

  void remove_locked(SharedFile const &file);
  std::optional<Located> locate_locked(Kind kind, Hash const &hash, ChunkSpan chunks) const;
  bool proved_whole(Hash const &xorb, std::uint32_t chunks) const;

  mutable std::shared_mutex mutex_;
  std::unordered_map<Hash, std::vector<SharedFilePtr>, HashOf> files_;
  std::unordered_map<Hash, std::vector<XorbExtent>, HashOf> xorbs_;
  std::map<std::array<std::uint8_t, 20>, std::uint32_t> swarms_; // info-hash -> how many objects name it
  // Single chunks are asked for only by BEP XET v1 peers: sorted on the first question after a change.
  mutable std::vector<ChunkPlace> places_;
  mutable bool places_current_ = false;
};

} // namespace zest

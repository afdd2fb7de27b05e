#include "store.hpp"

#include "infohash.hpp"

#include "zest_codec.h"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace zest {
namespace {

std::uint64_t prefix_of(Hash const &hash) {
  std::uint64_t value;
  std::memcpy(&value, hash.data(), sizeof value);
  return value;
}

} // namespace

bool Store::add(SharedFilePtr file) {
  std::uint64_t of_terms = 0;
  for (auto const &term : file->terms)
    of_terms += term.chunks.count();
  if (!file->terms.empty() && of_terms != file->chunks())
    return false;

  std::unique_lock lock(mutex_);
  auto &same = files_[file->hash];
  auto const old = std::find_if(same.begin(), same.end(), [&](auto const &f) { return f->path == file->path; });
  if (old != same.end()) {
    auto const keep = *old;
    remove_locked(*keep);
  }
  files_[file->hash].push_back(file);
  ++swarms_[file_info_hash(file->hash)];
  std::uint32_t at = 0;
  for (auto const &term : file->terms) {
    auto &extents = xorbs_[term.xorb];
    auto const place = std::upper_bound(extents.begin(), extents.end(), term.chunks.first,
                                        [](std::uint32_t first, XorbExtent const &e) { return first < e.chunks.first; });
    extents.insert(place, XorbExtent{file, term.chunks, at});
    ++swarms_[xorb_info_hash(term.xorb)];
    at += term.chunks.count();
  }
  places_current_ = false;
  return true;
}

void Store::remove(std::string const &path, Hash const &file_hash) {
  std::unique_lock lock(mutex_);
  auto const found = files_.find(file_hash);
  if (found == files_.end())
    return;
  for (auto const &file : found->second) {
    if (file->path == path) {
      auto const keep = file;
      remove_locked(*keep);
      return;
    }
  }
}

void Store::remove_locked(SharedFile const &file) {
  auto const forget_swarm = [this](std::array<std::uint8_t, 20> const &info_hash) {
    auto const swarm = swarms_.find(info_hash);
    if (swarm != swarms_.end() && --swarm->second == 0)
      swarms_.erase(swarm);
  };
  for (auto const &term : file.terms) {
    auto const found = xorbs_.find(term.xorb);
    if (found == xorbs_.end())
      continue;
    auto &extents = found->second;
    auto const one =
        std::find_if(extents.begin(), extents.end(), [&](XorbExtent const &e) { return e.file.get() == &file; });
    if (one != extents.end()) {
      extents.erase(one);
      forget_swarm(xorb_info_hash(term.xorb));
    }
    if (extents.empty())
      xorbs_.erase(found);
  }
  forget_swarm(file_info_hash(file.hash));
  auto const found = files_.find(file.hash);
  if (found != files_.end()) {
    auto &same = found->second;
    same.erase(std::remove_if(same.begin(), same.end(), [&](auto const &f) { return f.get() == &file; }), same.end());
    if (same.empty())
      files_.erase(found);
  }
  places_.clear();
  places_current_ = false;
}

bool Store::knows_swarm(std::array<std::uint8_t, 20> const &info_hash) const {
  std::shared_lock lock(mutex_);
  return swarms_.count(info_hash) != 0;
}

std::optional<Located> Store::locate(Kind kind, Hash const &hash, ChunkSpan chunks) const {
  std::shared_lock lock(mutex_);
  return locate_locked(kind, hash, chunks);
}

std::optional<Located> Store::locate_locked(Kind kind, Hash const &hash, ChunkSpan chunks) const {
  Located out;
  if (kind == Kind::file) {
    auto const found = files_.find(hash);
    if (found == files_.end() || chunks.end > found->second.front()->chunks())
      return std::nullopt;
    out.extents.push_back({found->second.front(), chunks, chunks.first});
    return out;
  }
  auto const found = xorbs_.find(hash);
  if (found == xorbs_.end())
    return std::nullopt;
  // Extents are sorted by their first chunk but may overlap (a term that a file uses twice, or two files).
  auto at = chunks.first;
  for (auto const &extent : found->second) {
    if (at == chunks.end || extent.chunks.first > at)
      break;
    if (extent.chunks.end <= at)
      continue;
    ChunkSpan const part{at, std::min(extent.chunks.end, chunks.end)};
    out.extents.push_back({extent.file, part, extent.file_first + (at - extent.chunks.first)});
    at = part.end;
  }
  if (at != chunks.end)
    return std::nullopt;
  return out;
}

std::optional<Located> Store::locate_chunk(Hash const &chunk) const {
  {
    std::shared_lock lock(mutex_);
    if (!places_current_) {
      lock.unlock();
      std::unique_lock change(mutex_);
      if (!places_current_) {
        places_.clear();
        for (auto const &entry : files_) {
          auto const &file = *entry.second.front();
          for (std::uint32_t i = 0; i < file.chunks(); ++i)
            places_.push_back({prefix_of(file.chunk_hashes[i]), &file, i});
        }
        std::sort(places_.begin(), places_.end(),
                  [](ChunkPlace const &a, ChunkPlace const &b) { return a.prefix < b.prefix; });
        places_current_ = true;
      }
    }
  }
  std::shared_lock lock(mutex_);
  auto const prefix = prefix_of(chunk);
  auto place = std::lower_bound(places_.begin(), places_.end(), prefix,
                                [](ChunkPlace const &p, std::uint64_t value) { return p.prefix < value; });
  for (; place != places_.end() && place->prefix == prefix; ++place) {
    if (place->file->chunk_hashes[place->chunk] != chunk)
      continue;
    for (auto const &file : files_.at(place->file->hash))
      if (file.get() == place->file)
        return Located{{Extent{file, {0, 1}, place->chunk}}};
  }
  return std::nullopt;
}

std::optional<Store::Holding> Store::holding(Kind kind, Hash const &hash) const {
  std::shared_lock lock(mutex_);
  if (kind == Kind::file) {
    auto const found = files_.find(hash);
    if (found == files_.end())
      return std::nullopt;
    auto const chunks = found->second.front()->chunks();
    Holding out{chunks, {}};
    if (chunks != 0)
      out.ranges.push_back({0, chunks});
    return out;
  }
  auto const found = xorbs_.find(hash);
  if (found == xorbs_.end())
    return std::nullopt;
  Holding out;
  for (auto const &extent : found->second) {
    if (!out.ranges.empty() && extent.chunks.first <= out.ranges.back().end)
      out.ranges.back().end = std::max(out.ranges.back().end, extent.chunks.end);
    else if (out.ranges.size() < wire::max_have_ranges)
      out.ranges.push_back(extent.chunks);
  }
  // Only the xorb hash tells whether the run that is held is all of it.
  if (out.ranges.front().first == 0 && proved_whole(hash, out.ranges.front().end))
    out.chunks = out.ranges.front().end;
  return out;
}

bool Store::proved_whole(Hash const &xorb, std::uint32_t chunks) const {
  auto const located = locate_locked(Kind::xorb, xorb, {0, chunks});
  if (!located || chunks > wire::max_xorb_chunks)
    return false;
  std::vector<std::uint8_t> hashes;
  std::vector<std::uint32_t> lengths;
  hashes.reserve(std::size_t{32} * chunks);
  lengths.reserve(chunks);
  for (auto const &extent : located->extents)
    for (std::uint32_t i = 0; i < extent.object.count(); ++i) {
      auto const &hash = extent.file->chunk_hashes[extent.file_first + i];
      hashes.insert(hashes.end(), hash.begin(), hash.end());
      lengths.push_back(extent.file->length(extent.file_first + i));
    }
  Hash root;
  zest_error error;
  return zest_merkle_root(hashes.data(), lengths.data(), lengths.size(), root.data(), &error) == ZEST_OK && root == xorb;
}

std::uint32_t Store::files() const {
  std::shared_lock lock(mutex_);
  return static_cast<std::uint32_t>(files_.size());
}

std::uint32_t Store::xorbs() const {
  std::shared_lock lock(mutex_);
  return static_cast<std::uint32_t>(xorbs_.size());
}

} // namespace zest

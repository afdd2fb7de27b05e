#include "store.hpp"

#include <algorithm>
#include <mutex>
#include <numeric>

#include "zest_codec.h"

namespace zest {

std::optional<std::uint32_t> SharedFile::find(Hash const &chunk) const {
    std::call_once(sorted_, [this] {
        std::vector<std::uint32_t> order(chunks());
        std::iota(order.begin(), order.end(), 0u);
        std::sort(order.begin(), order.end(),
                  [this](std::uint32_t a, std::uint32_t b) { return chunk_hashes[a] < chunk_hashes[b]; });
        by_hash_ = std::move(order);
    });
    auto const at = std::lower_bound(by_hash_.begin(), by_hash_.end(), chunk,
                                     [this](std::uint32_t number, Hash const &h) { return chunk_hashes[number] < h; });
    if (at == by_hash_.end() || chunk_hashes[*at] != chunk) return std::nullopt;
    return *at;
}

bool Store::add(SharedFilePtr file) {
    std::uint64_t of_terms = 0;
    for (auto const &term : file->terms) of_terms += term.chunks.count();
    if (!file->terms.empty() && of_terms != file->chunks()) return false;

    std::unique_lock lock(mutex_);
    auto &same = files_[file->hash];
    auto const old = std::find_if(same.begin(), same.end(), [&](auto const &f) { return f->path == file->path; });
    if (old != same.end()) {
        auto const keep = *old;
        remove_locked(*keep);
    }
    files_[file->hash].push_back(file);
    add_swarm(Kind::file, file->hash);
    std::uint32_t at = 0;
    for (auto const &term : file->terms) {
        auto &xorb = xorbs_[term.xorb];
        xorb.whole = unknown;
        auto &extents = xorb.extents;
        auto const place =
            std::upper_bound(extents.begin(), extents.end(), term.chunks.first,
                             [](std::uint32_t first, XorbExtent const &e) { return first < e.chunks.first; });
        extents.insert(place, XorbExtent{file, term.chunks, at});
        add_swarm(Kind::xorb, term.xorb);
        at += term.chunks.count();
    }
    return true;
}

void Store::remove(std::string const &path, Hash const &file_hash) {
    std::unique_lock lock(mutex_);
    auto const found = files_.find(file_hash);
    if (found == files_.end()) return;
    for (auto const &file : found->second) {
        if (file->path == path) {
            auto const keep = file;
            remove_locked(*keep);
            return;
        }
    }
}

bool Store::remove(SharedFilePtr const &file) {
    std::unique_lock lock(mutex_);
    if (!file->offered) return false;
    remove_locked(*file);
    return true;
}

void Store::remove_locked(SharedFile const &file) {
    file.offered = false;
    for (auto const &term : file.terms) {
        auto const found = xorbs_.find(term.xorb);
        if (found == xorbs_.end()) continue;
        found->second.whole = unknown;
        auto &extents = found->second.extents;
        auto const one =
            std::find_if(extents.begin(), extents.end(), [&](XorbExtent const &e) { return e.file.get() == &file; });
        if (one != extents.end()) {
            extents.erase(one);
            remove_swarm(Kind::xorb, term.xorb);
        }
        if (extents.empty()) xorbs_.erase(found);
    }
    remove_swarm(Kind::file, file.hash);
    auto const found = files_.find(file.hash);
    if (found != files_.end()) {
        auto &same = found->second;
        same.erase(std::remove_if(same.begin(), same.end(), [&](auto const &f) { return f.get() == &file; }),
                   same.end());
        if (same.empty()) files_.erase(found);
    }
}

void Store::add_swarm(Kind kind, Hash const &hash) {
    auto &swarm = swarms_[names_.of(kind, hash)];
    swarm.object = {kind, hash};
    ++swarm.users;
}

void Store::remove_swarm(Kind kind, Hash const &hash) {
    auto const swarm = swarms_.find(names_.of(kind, hash));
    if (swarm != swarms_.end() && --swarm->second.users == 0) swarms_.erase(swarm);
}

std::optional<Store::Object> Store::find_swarm(InfoHash const &info_hash) const {
    std::shared_lock lock(mutex_);
    auto const swarm = swarms_.find(info_hash);
    if (swarm == swarms_.end()) return std::nullopt;
    return swarm->second.object;
}

std::optional<Located> Store::locate(Kind kind, Hash const &hash, ChunkSpan chunks) const {
    std::shared_lock lock(mutex_);
    return locate_locked(kind, hash, chunks);
}

std::optional<Located> Store::locate_locked(Kind kind, Hash const &hash, ChunkSpan chunks) const {
    Located out;
    if (kind == Kind::file) {
        auto const found = files_.find(hash);
        if (found == files_.end() || chunks.end > found->second.front()->chunks()) return std::nullopt;
        out.extents.push_back({found->second.front(), chunks, chunks.first});
        return out;
    }
    auto const found = xorbs_.find(hash);
    if (found == xorbs_.end()) return std::nullopt;
    // Extents may overlap: a term that a file uses twice, or two files.
    auto at = chunks.first;
    for (auto const &extent : found->second.extents) {
        if (at == chunks.end || extent.chunks.first > at) break;
        if (extent.chunks.end <= at) continue;
        ChunkSpan const part{at, std::min(extent.chunks.end, chunks.end)};
        out.extents.push_back({extent.file, part, extent.file_first + (at - extent.chunks.first)});
        at = part.end;
    }
    if (at != chunks.end) return std::nullopt;
    return out;
}

std::optional<Located> Store::locate_chunk(Hash const &chunk, SharedFilePtr const &likely) const {
    auto const look = [&](SharedFilePtr const &file) -> std::optional<Located> {
        if (auto const at = file->find(chunk)) return Located{{Extent{file, {0, 1}, *at}}};
        return std::nullopt;
    };
    if (likely && likely->offered)
        if (auto found = look(likely)) return found;
    std::vector<SharedFilePtr> all;
    {
        std::shared_lock lock(mutex_);
        all.reserve(files_.size());
        for (auto const &entry : files_) all.push_back(entry.second.front());
    }
    for (auto const &file : all)
        if (auto found = look(file)) return found;
    return std::nullopt;
}

std::optional<Store::Holding> Store::holding(Kind kind, Hash const &hash) const {
    std::shared_lock lock(mutex_);
    if (kind == Kind::file) {
        auto const found = files_.find(hash);
        if (found == files_.end()) return std::nullopt;
        auto const chunks = found->second.front()->chunks();
        Holding out{chunks, {}};
        if (chunks != 0) out.ranges.push_back({0, chunks});
        return out;
    }
    auto const found = xorbs_.find(hash);
    if (found == xorbs_.end()) return std::nullopt;
    Holding out;
    auto const &xorb = found->second;
    for (auto const &extent : xorb.extents) {
        if (!out.ranges.empty() && extent.chunks.first <= out.ranges.back().end)
            out.ranges.back().end = std::max(out.ranges.back().end, extent.chunks.end);
        else if (out.ranges.size() < wire::max_have_ranges)
            out.ranges.push_back(extent.chunks);
    }
    // Only the xorb hash tells whether the run that is held is all of it.
    auto whole = xorb.whole.load();
    if (whole == unknown) {
        whole =
            out.ranges.front().first == 0 && proved_whole(hash, out.ranges.front().end) ? out.ranges.front().end : 0;
        xorb.whole = whole;
    }
    out.chunks = whole;
    return out;
}

bool Store::proved_whole(Hash const &xorb, std::uint32_t chunks) const {
    auto const located = locate_locked(Kind::xorb, xorb, {0, chunks});
    if (!located || chunks > wire::max_xorb_chunks) return false;
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
    return zest_merkle_root(hashes.data(), lengths.data(), lengths.size(), root.data(), &error) == ZEST_OK &&
           root == xorb;
}

std::uint32_t Store::files() const {
    std::shared_lock lock(mutex_);
    return static_cast<std::uint32_t>(files_.size());
}

std::uint32_t Store::xorbs() const {
    std::shared_lock lock(mutex_);
    return static_cast<std::uint32_t>(xorbs_.size());
}

}  // namespace zest

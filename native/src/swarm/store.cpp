#include "store.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <utility>

#include "zest_codec.h"

namespace zest {

std::uint32_t SharedFile::prefix_of(Hash const &hash) noexcept {
    std::uint32_t out;
    std::memcpy(&out, hash.data(), sizeof out);
    return out;
}

void SharedFile::sort() const {
    std::vector<Named> named(chunks());
    std::array<Hash, 1024> some;
    for (std::uint32_t at = 0; at < chunks();) {
        auto const end = std::min(chunks(), at + static_cast<std::uint32_t>(some.size()));
        // An error of the disk: those chunks are not found.
        bool const read = list->read_hashes({at, end}, some.front().data());
        for (auto const first = at; at < end; ++at) named[at] = {read ? prefix_of(some[at - first]) : 0, at};
    }
    std::sort(named.begin(), named.end(), [](Named const &a, Named const &b) { return a.prefix < b.prefix; });
    by_hash_ = std::move(named);
}

std::optional<std::uint32_t> SharedFile::find(Hash const &chunk) const {
    std::call_once(sorted_, [this] { sort(); });
    auto const prefix = prefix_of(chunk);
    auto at = std::lower_bound(by_hash_.begin(), by_hash_.end(), prefix,
                               [](Named const &one, std::uint32_t wanted) { return one.prefix < wanted; });
    for (; at != by_hash_.end() && at->prefix == prefix; ++at) {
        ChunkSpan const one{at->chunk, at->chunk + 1};
        Hash hash;
        if (first_held(one).count() && list->read_hashes(one, hash.data()) && hash == chunk) return at->chunk;
    }
    return std::nullopt;
}

bool Store::add(SharedFilePtr file) {
    std::uint64_t of_terms = 0;
    for (auto const &term : file->terms) of_terms += term.chunks.count();
    if (!file->terms.empty() && of_terms != file->chunks()) return false;

    std::unique_lock lock(mutex_);
    SharedFilePtr old;
    if (file->transfer) {
        for (auto const &one : growing_)
            if (one.file->transfer == file->transfer) old = one.file;
    } else if (auto const found = files_.find(*file->hash); found != files_.end()) {
        for (auto const &one : found->second)
            if (!one->transfer && one->path == file->path) old = one;
    }
    if (old) remove_locked(*old);
    if (file->transfer) growing_.push_back({file, 0});
    if (file->hash) {
        auto &same = files_[*file->hash];
        auto const growing =
            std::find_if(same.begin(), same.end(), [](auto const &f) { return f->transfer != nullptr; });
        same.insert(file->transfer ? same.end() : growing, file);
        add_swarm(Kind::file, *file->hash);
    }
    std::uint32_t at = 0;
    for (auto const &term : file->terms) {
        auto &xorb = xorbs_[term.xorb];
        xorb.parts_changed();
        auto &parts = xorb.parts;
        auto const place = std::upper_bound(parts.begin(), parts.end(), term.chunks.first,
                                            [](std::uint32_t first, Part const &p) { return first < p.chunks.first; });
        parts.insert(place, Part{file, term.chunks, at});
        add_swarm(Kind::xorb, term.xorb);
        at += term.chunks.count();
    }
    changed_locked(*file);
    return true;
}

void Store::remove(std::string const &path, Hash const &file_hash) {
    std::unique_lock lock(mutex_);
    auto const found = files_.find(file_hash);
    if (found == files_.end()) return;
    for (auto const &file : found->second) {
        if (!file->transfer && file->path == path) {
            auto const keep = file;
            remove_locked(*keep);
            return;
        }
    }
}

void Store::remove(Transfer const &transfer) {
    std::unique_lock lock(mutex_);
    for (auto const &one : growing_) {
        if (one.file->transfer.get() == &transfer) {
            auto const keep = one.file;
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

// The caller keeps the file alive.
void Store::remove_locked(SharedFile const &file) {
    file.offered = false;
    changed_locked(file);
    for (auto const &term : file.terms) {
        auto const found = xorbs_.find(term.xorb);
        if (found == xorbs_.end()) continue;
        found->second.parts_changed();
        auto &parts = found->second.parts;
        auto const one = std::find_if(parts.begin(), parts.end(), [&](Part const &p) { return p.file.get() == &file; });
        if (one != parts.end()) {
            parts.erase(one);
            remove_swarm(Kind::xorb, term.xorb);
        }
        if (parts.empty()) xorbs_.erase(found);
    }
    growing_.erase(
        std::remove_if(growing_.begin(), growing_.end(), [&](Growing const &g) { return g.file.get() == &file; }),
        growing_.end());
    if (!file.hash) return;
    remove_swarm(Kind::file, *file.hash);
    auto const found = files_.find(*file.hash);
    if (found != files_.end()) {
        auto &same = found->second;
        same.erase(std::remove_if(same.begin(), same.end(), [&](auto const &f) { return f.get() == &file; }),
                   same.end());
        if (same.empty()) files_.erase(found);
    }
}

void Store::changed_locked(SharedFile const &file) {
    if (file.hash) changed_.push_back({Kind::file, *file.hash});
    for (auto const &term : file.terms) changed_.push_back({Kind::xorb, term.xorb});
}

std::vector<Object> Store::take_changes() {
    std::unique_lock lock(mutex_);
    std::vector<SharedFilePtr> closed;
    for (auto &one : growing_) {
        if (one.file->transfer->closed()) {
            closed.push_back(one.file);
        } else if (auto const held = one.file->transfer->held(); held != one.held) {
            one.held = held;
            changed_locked(*one.file);
        }
    }
    for (auto const &file : closed) remove_locked(*file);
    return std::exchange(changed_, {});
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

void Store::seek(Hash const &file) {
    std::unique_lock lock(mutex_);
    if (!sought_.insert(file).second) return;
    add_swarm(Kind::file, file);
    changed_.push_back({Kind::file, file});
}

void Store::seek_no_more(Hash const &file) {
    std::unique_lock lock(mutex_);
    if (sought_.erase(file) == 0) return;
    remove_swarm(Kind::file, file);
    changed_.push_back({Kind::file, file});
}

std::optional<Object> Store::find_swarm(InfoHash const &info_hash) const {
    std::shared_lock lock(mutex_);
    auto const swarm = swarms_.find(info_hash);
    if (swarm == swarms_.end()) return std::nullopt;
    return swarm->second.object;
}

std::optional<Located> Store::locate(Kind kind, Hash const &hash, ChunkSpan chunks) const {
    std::shared_lock lock(mutex_);
    if (kind == Kind::file) return cover(parts_of_file(hash), chunks, true);
    auto const found = xorbs_.find(hash);
    return found == xorbs_.end() ? std::nullopt : cover(found->second.parts, chunks, true);
}

std::optional<Located> Store::locate_entries(Kind kind, Hash const &hash, ChunkSpan chunks) const {
    std::shared_lock lock(mutex_);
    if (kind == Kind::file) return cover(parts_of_file(hash), chunks, false);
    auto const held = holding_locked(kind, hash);
    if (!held || held->chunks == 0) return std::nullopt;
    return cover(xorbs_.find(hash)->second.parts, chunks, true);
}

Store::Parts Store::parts_of_file(Hash const &hash) const {
    Parts out;
    if (auto const found = files_.find(hash); found != files_.end())
        for (auto const &file : found->second) out.push_back({file, {0, file->chunks()}, 0});
    return out;
}

// Parts may overlap: a term that a file uses twice, two files, one that is still growing.
std::optional<Located> Store::cover(Parts const &parts, ChunkSpan chunks, bool held) {
    Located out;
    auto begin = parts.begin();
    for (auto at = chunks.first; at != chunks.end;) {
        while (begin != parts.end() && begin->chunks.end <= at) ++begin;
        Extent best{nullptr, {at, at}, 0};
        for (auto part = begin; part != parts.end() && part->chunks.first <= at; ++part) {
            auto const end = std::min(part->chunks.end, chunks.end);
            if (end <= best.object.end) continue;
            auto const file_first = part->file_first + (at - part->chunks.first);
            ChunkSpan run{file_first, file_first + (end - at)};
            if (held) run = part->file->first_held(run);
            if (run.first != file_first || at + run.count() <= best.object.end) continue;
            best = {part->file, {at, at + run.count()}, file_first};
        }
        if (!best.file) return std::nullopt;
        at = best.object.end;
        out.extents.push_back(std::move(best));
    }
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
        all.reserve(files_.size() + growing_.size());
        // Of files with the same content one is enough, unless they are growing.
        for (auto const &entry : files_)
            if (!entry.second.front()->transfer) all.push_back(entry.second.front());
        for (auto const &entry : growing_) all.push_back(entry.file);
    }
    for (auto const &file : all)
        if (auto found = look(file)) return found;
    return std::nullopt;
}

std::optional<Store::Holding> Store::holding(Kind kind, Hash const &hash) const {
    std::shared_lock lock(mutex_);
    return holding_locked(kind, hash);
}

std::optional<Store::Holding> Store::holding_locked(Kind kind, Hash const &hash) const {
    auto const runs_of = [](Parts const &parts) {
        std::vector<ChunkSpan> runs;
        for (auto const &part : parts) {
            ChunkSpan rest{part.file_first, part.file_first + part.chunks.count()};
            while (rest.first != rest.end) {
                auto const run = part.file->first_held(rest);
                auto const first = part.chunks.first + (run.first - part.file_first);
                if (run.count()) runs.push_back({first, first + run.count()});
                rest.first = run.end;
            }
        }
        return merged(std::move(runs), wire::max_have_ranges);
    };
    if (kind == Kind::file) {
        auto const found = files_.find(hash);
        if (found == files_.end()) return sought_.count(hash) ? std::optional<Holding>(Holding{}) : std::nullopt;
        return Holding{found->second.front()->chunks(), runs_of(parts_of_file(hash))};
    }
    auto const found = xorbs_.find(hash);
    if (found == xorbs_.end()) return std::nullopt;
    auto const &xorb = found->second;
    Holding out{0, runs_of(xorb.parts)};
    out.unproved = xorb.whole == unknown;
    auto const whole = out.unproved ? 0 : xorb.whole;
    if (whole != 0 && out.ranges.size() == 1 && out.ranges.front().first == 0 && out.ranges.front().end == whole)
        out.chunks = whole;
    return out;
}

void Store::prove(Hash const &xorb) {
    Parts parts;
    {
        std::shared_lock lock(mutex_);
        auto const found = xorbs_.find(xorb);
        if (found == xorbs_.end() || found->second.whole != unknown) return;
        parts = found->second.parts;
    }
    auto const whole = proved_whole(xorb, parts);
    std::unique_lock lock(mutex_);
    auto const found = xorbs_.find(xorb);
    if (found == xorbs_.end() || found->second.whole != unknown) return;
    auto const same = [](Part const &a, Part const &b) {
        return a.file == b.file && a.chunks.first == b.chunks.first && a.chunks.end == b.chunks.end;
    };
    auto const &now = found->second.parts;
    // There may be more parts by now, which tell.
    if (whole == 0 && !std::equal(now.begin(), now.end(), parts.begin(), parts.end(), same)) return;
    found->second.whole = whole;
    if (whole != 0) changed_.push_back({Kind::xorb, xorb});
}

// Only the xorb's hash tells whether the run that is known is all of it.
std::uint32_t Store::proved_whole(Hash const &xorb, Parts const &parts) {
    std::uint32_t chunks = 0;
    for (auto const &part : parts)
        if (part.chunks.first <= chunks) chunks = std::max(chunks, part.chunks.end);
    if (chunks == 0 || chunks > wire::max_xorb_chunks) return 0;
    auto const located = cover(parts, {0, chunks}, false);
    if (!located) return 0;
    std::vector<std::uint8_t> hashes(sizeof(Hash) * chunks);
    std::vector<std::uint32_t> lengths;
    lengths.reserve(chunks);
    for (auto const &[file, object, file_first] : located->extents) {
        ChunkSpan const span{file_first, file_first + object.count()};
        if (!file->list->read_hashes(span, hashes.data() + sizeof(Hash) * object.first)) return 0;
        for (auto i = span.first; i != span.end; ++i) lengths.push_back(file->list->length(i));
    }
    Hash root;
    zest_error error;
    bool const proved = zest_merkle_root(hashes.data(), lengths.data(), lengths.size(), root.data(), &error) == ZEST_OK;
    return proved && root == xorb ? chunks : 0;
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

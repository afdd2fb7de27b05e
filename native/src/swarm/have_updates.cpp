#include "have_updates.hpp"

#include <unordered_set>

#include "chunk_set.hpp"

namespace zest {
namespace {

bool equal(Store::Holding const &a, Store::Holding const &b) {
    auto const same = [](ChunkSpan x, ChunkSpan y) { return x.first == y.first && x.end == y.end; };
    return a.chunks == b.chunks && std::equal(a.ranges.begin(), a.ranges.end(), b.ranges.begin(), b.ranges.end(), same);
}

}  // namespace

void HaveUpdates::watch(std::uint32_t connection, std::uint32_t id, Object const &object, Store::Holding holding,
                        std::weak_ptr<Listener> listener) {
    forget(connection, id);
    if (auto const known = objects_.find(object); known != objects_.end()) {
        auto const &by = known->second.by;
        auto const earlier = by.lower_bound({connection, 0});
        if (earlier != by.end() && earlier->first == connection) erase(watches_.find(*earlier));
    }
    auto &use = use_[connection];
    if (use.objects < most_objects && use.ranges + holding.ranges.size() <= most_ranges) {
        ++use.objects;
        use.ranges += holding.ranges.size();
        auto &watched = objects_[object];
        if (!watched.now || !equal(*watched.now, holding))
            set_now(watched, std::make_shared<Store::Holding const>(std::move(holding)));
        watched.by.insert({connection, id});
        watches_[{connection, id}] = {object, watched.now, std::move(listener)};
        if (watches_.size() == 1) wake_();
    } else if (use.objects == 0) {
        use_.erase(connection);
    }
}

void HaveUpdates::forget(std::uint32_t connection, std::uint32_t id) {
    if (auto const at = watches_.find({connection, id}); at != watches_.end()) erase(at);
}

void HaveUpdates::forget(std::uint32_t connection) {
    for (auto at = watches_.lower_bound({connection, 0}); at != watches_.end() && at->first.first == connection;)
        erase(at++);
}

void HaveUpdates::erase(Watches::iterator at) {
    auto const &[key, watch] = *at;
    auto const use = use_.find(key.first);
    use->second.ranges -= watch.told->ranges.size();
    if (--use->second.objects == 0) use_.erase(use);
    auto const object = objects_.find(watch.object);
    object->second.by.erase(key);
    if (object->second.by.empty()) objects_.erase(object);
    behind_.erase(key);
    watches_.erase(at);
}

void HaveUpdates::set_now(Watched &watched, HoldingPtr now) {
    watched.now = std::move(now);
    behind_.insert(watched.by.begin(), watched.by.end());
}

void HaveUpdates::tick() {
    auto const changes = store_.take_changes();
    if (!objects_.empty())
        for (auto const &object : std::unordered_set<Object, ObjectHash>(changes.begin(), changes.end())) look(object);
    for (auto at = behind_.begin(); at != behind_.end();) {
        auto const key = *at++;
        if (tell(watches_.find(key))) behind_.erase(key);
    }
}

void HaveUpdates::look(Object const &object) {
    auto const found = objects_.find(object);
    if (found == objects_.end()) return;
    auto &watched = found->second;
    auto holding = store_.holding(object.kind, object.hash);
    if (holding && holding->unproved) prove_(object.hash);  // its end is a change
    if (!holding)
        set_now(watched, nullptr);
    else if (!watched.now || !equal(*watched.now, *holding))
        set_now(watched, std::make_shared<Store::Holding const>(std::move(*holding)));
}

// False: not now.
bool HaveUpdates::tell(Watches::iterator at) {
    auto const id = at->first.second;
    auto &watch = at->second;
    auto const listener = watch.listener.lock();
    if (!listener) return erase(at), true;
    if (!listener->takes_updates()) return false;
    auto const now = objects_.at(watch.object).now;
    auto &use = use_.at(at->first.first);
    bool lost = !now || use.ranges - watch.told->ranges.size() + now->ranges.size() > most_ranges;
    auto const more = lost ? std::vector<ChunkSpan>{} : added(watch.told->ranges, now->ranges, lost);
    if (lost) {
        // What was said does not hold any more. Who still wants the rest asks again.
        listener->send_update(wire::have_update(id, Answer::not_found, 0, {}));
        return erase(at), true;
    }
    use.ranges += now->ranges.size();
    use.ranges -= watch.told->ranges.size();
    bool const news = !more.empty() || now->chunks != watch.told->chunks;
    watch.told = now;
    if (news) listener->send_update(wire::have_update(id, Answer::ok, now->chunks, more));
    return true;
}

}  // namespace zest

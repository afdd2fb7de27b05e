// Who wants to be told when more of an object is held, and what they have been told so far.
//
// Nothing is queued: for each who asked it is remembered what was told, and what is new since then is found when it
// can be sent. Those who were told the same share one list. Used on the network thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store.hpp"

namespace zest {

class HaveUpdates {
public:
    // `wake`: there is something to look after from now on. `prove`: have Store::prove run on another thread.
    HaveUpdates(Store &store, std::function<void()> wake, std::function<void(Hash const &)> prove)
        : store_(store), wake_(std::move(wake)), prove_(std::move(prove)) {}

    class Listener {
    public:
        virtual bool takes_updates() const = 0;  // whether it reads what it is sent
        virtual void send_update(std::vector<std::uint8_t> const &message) = 0;

    protected:
        ~Listener() = default;
    };

    // What one connection may have; what it asks for beyond is not told.
    static constexpr std::uint32_t most_objects = 4096;
    static constexpr std::size_t most_ranges = 65536;

    // Somebody has been told this in answer to the request `id` and wants to know more. An earlier request of the same
    // connection for the same object ends.
    void watch(std::uint32_t connection, std::uint32_t id, Object const &object, Store::Holding holding,
               std::weak_ptr<Listener> listener);
    void forget(std::uint32_t connection, std::uint32_t id);
    void forget(std::uint32_t connection);

    // Nobody waits for anything.
    bool idle() const noexcept { return watches_.empty(); }
    // Look at what has changed, and tell whom it concerns.
    void tick();

private:
    using HoldingPtr = std::shared_ptr<Store::Holding const>;
    using Key = std::pair<std::uint32_t, std::uint32_t>;  // connection, id
    struct Watch {
        Object object;
        HoldingPtr told;
        std::weak_ptr<Listener> listener;
    };
    struct Watched {
        HoldingPtr now;  // null: not held
        std::set<Key> by;
    };
    struct Use {
        std::uint32_t objects = 0;
        std::size_t ranges = 0;
    };
    using Watches = std::map<Key, Watch>;

    void look(Object const &object);
    void set_now(Watched &watched, HoldingPtr now);
    bool tell(Watches::iterator at);
    void erase(Watches::iterator at);

    Store &store_;
    std::function<void()> wake_;
    std::function<void(Hash const &)> prove_;
    Watches watches_;
    std::unordered_map<Object, Watched, ObjectHash> objects_;
    std::map<std::uint32_t, Use> use_;
    std::set<Key> behind_;  // were told less than is known now
};

}  // namespace zest

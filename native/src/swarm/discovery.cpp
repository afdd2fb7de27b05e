#include "discovery.hpp"

#include <algorithm>
#include <cstring>
#include <libtorrent/alert_types.hpp>
#include <libtorrent/kademlia/announce_flags.hpp>
#include <libtorrent/settings_pack.hpp>
#include <libtorrent/socket_io.hpp>

#include "settings.hpp"
#include "text.hpp"

namespace zest {
namespace {

constexpr auto never = std::numeric_limits<std::int64_t>::max();

// BEP 5 has nodes forget an announcement after 30 minutes.
constexpr std::int64_t announce_again_ms = 15 * 60'000;
// Who only looks for peers of a file asks again soon: they may come at the same time as we did. (Who announces himself
// is found by those who come later.)
constexpr std::array<std::int64_t, 3> look_again_ms{10'000, 30'000, 5 * 60'000};
constexpr std::int64_t look_for_xorb_again_ms = 15 * 60'000;
// Without a node there is nobody to ask. How long they are waited for, and how often they are counted.
constexpr std::int64_t nodes_patience_ms = 10'000;
constexpr std::int64_t count_nodes_soon_ms = 100;
constexpr std::int64_t count_nodes_ms = 10'000;

// Ports below are services of the system: who sends us there means somebody else.
constexpr std::uint16_t first_port = 1024;

}  // namespace

DiscoverySettings::DiscoverySettings(zest_session_config const &config)
    : lsd(config.lsd != 0),
      dht(config.dht != 0),
      dht_on_site(config.dht != 0 && dht_is_on_site(config)),
      tracker_on_machine(false),
      trackers(lines_of(config.trackers)) {
    for (auto const &url : trackers) note(url);
}

void DiscoverySettings::note(std::string const &tracker) {
    auto const host = host_of(tracker);
    lt::error_code error;
    auto const address = lt::make_address(host, error);
    tracker_on_machine |= host == "localhost" || (!error && scope_of(address) == Scope::machine);
}

void Discovery::start(std::uint16_t port) {
    port_ = port;
    for (auto const &url : settings_.trackers) trackers_[url];
}

void Discovery::wake_up() {
    if (awake_) return;
    awake_ = true;
    lt::settings_pack pack;
    pack.set_bool(lt::settings_pack::enable_lsd, settings_.lsd);
    pack.set_bool(lt::settings_pack::enable_dht, settings_.dht);
    swarms_.session().apply_settings(std::move(pack));
}

void Discovery::join(InfoHash const &swarm, Kind kind, bool announce, std::int64_t now_ms) {
    wake_up();
    auto const [at, fresh] = joined_.try_emplace(swarm, Joined{kind, announce, now_ms});
    auto &joined = at->second;
    if (!fresh) {
        if (joined.announce == announce) return;
        joined.announce = announce;
        joined.lookups = 0;
        queue_of(kind).erase({joined.due_ms, swarm});
        joined.due_ms = now_ms;
    } else if (kind == Kind::file && (settings_.lsd || !settings_.trackers.empty())) {
        to_announce_.push_back(swarm);
    }
    if (settings_.dht) queue_of(kind).insert({joined.due_ms, swarm});
    due_ms_ = 0;
}

void Discovery::leave(InfoHash const &swarm, bool in_use) {
    auto const at = joined_.find(swarm);
    if (at == joined_.end()) return;
    queue_of(at->second.kind).erase({at->second.due_ms, swarm});
    joined_.erase(at);
    dialer.forget(swarm);
    swarms_.silence(swarm, in_use);
}

void Discovery::add_tracker(std::string const &url) {
    if (!trackers_.try_emplace(url).second) return;
    settings_.trackers.push_back(url);
    settings_.note(url);
    for (auto const &[swarm, joined] : joined_) {
        if (joined.kind != Kind::file || swarms_.add_tracker(swarm, url)) continue;
        if (std::find(to_announce_.begin(), to_announce_.end(), swarm) == to_announce_.end())
            to_announce_.push_back(swarm);
    }
    due_ms_ = 0;
}

void Discovery::heard(InfoHash const &swarm, Endpoint const &told, Source source, Scope teller, std::int64_t now_ms) {
    if (!joined(swarm)) return;
    auto const endpoint = plain(told);
    if (endpoint.port() < first_port) return;
    auto const scope = scope_of(endpoint.address());
    if (scope == Scope::nowhere) return;
    // From afar nobody can know what is at our loopback address, or in our network: he would have us knock at doors
    // that he cannot reach himself. A tracker may well stand in our network and be known by a name.
    if (source == Source::tracker && scope == Scope::machine && !settings_.tracker_on_machine) return;
    if (source == Source::dht && scope != Scope::world && !settings_.dht_on_site) return;
    if (source == Source::pex && scope < teller) return;
    dialer.heard(swarm, endpoint, source, now_ms);
}

void Discovery::tick(std::int64_t now_ms) {
    if (now_ms < due_ms_) return;
    due_ms_ = never;
    while (!to_announce_.empty() && announcements_.take(now_ms)) {
        auto const swarm = to_announce_.front();
        to_announce_.pop_front();
        if (joined(swarm)) swarms_.announce(swarm, settings_.trackers, settings_.lsd, now_ms);
    }
    if (!to_announce_.empty()) due_ms_ = announcements_.ready_ms(now_ms);
    if (settings_.dht && awake_) dht_tick(now_ms);
}

void Discovery::dht_tick(std::int64_t now_ms) {
    if (!dht_since_ms_) dht_since_ms_ = now_ms;
    bool const waiting = dht_nodes() == 0 && now_ms - dht_since_ms_ < nodes_patience_ms;
    if (now_ms >= ask_nodes_ms_) {
        swarms_.session().post_dht_stats();
        ask_nodes_ms_ = now_ms + (waiting ? count_nodes_soon_ms : count_nodes_ms);
    }
    due_ms_ = std::min(due_ms_, ask_nodes_ms_);
    if (waiting) return;
    while (lookups_.ready(now_ms) && (look_up(files_, now_ms) || look_up(xorbs_, now_ms))) lookups_.take(now_ms);
    auto next = never;
    for (auto const *queue : {&files_, &xorbs_})
        if (!queue->empty()) next = std::min(next, queue->begin()->first);
    if (next != never) due_ms_ = std::min(due_ms_, std::max(next, lookups_.ready_ms(now_ms)));
}

// One lookup, which is an announcement as well where that is wanted. False: none is due.
bool Discovery::look_up(std::set<std::pair<std::int64_t, InfoHash>> &queue, std::int64_t now_ms) {
    if (queue.empty() || queue.begin()->first > now_ms) return false;
    auto const swarm = queue.begin()->second;
    queue.erase(queue.begin());
    auto &joined = joined_.at(swarm);
    lt::sha1_hash const name(reinterpret_cast<char const *>(swarm.data()));
    if (joined.announce)
        swarms_.session().dht_announce(name, port_, {});
    else
        swarms_.session().dht_get_peers(name);
    std::int64_t rest = announce_again_ms;
    if (dht_nodes() == 0)
        rest = nodes_patience_ms;  // into the void: do not count it
    else if (!joined.announce && joined.kind == Kind::file)
        rest = look_again_ms[std::min<std::size_t>(joined.lookups++, look_again_ms.size() - 1)];
    else if (!joined.announce)
        rest = look_for_xorb_again_ms;
    // Not all at once the next time.
    joined.due_ms = now_ms + rest + rest * swarm[0] / 256 / 8;
    queue.insert({joined.due_ms, swarm});
    return true;
}

void Discovery::on_alert(lt::alert const &alert, std::int64_t now_ms) {
    if (auto const *reply = lt::alert_cast<lt::dht_get_peers_reply_alert>(&alert)) {
        InfoHash swarm;
        std::memcpy(swarm.data(), reply->info_hash.data(), swarm.size());
        for (auto const &peer : reply->peers()) heard(swarm, peer, Source::dht, Scope::world, now_ms);
    } else if (auto const *stats = lt::alert_cast<lt::dht_stats_alert>(&alert)) {
        bool const none = dht_nodes() == 0;
        std::uint32_t count = 0;
        for (auto const &bucket : stats->routing_table) count += static_cast<std::uint32_t>(bucket.num_nodes);
        nodes_[stats->local_endpoint] = count;
        if (none && count) due_ms_ = 0;
    } else if (auto const *answer = lt::alert_cast<lt::tracker_reply_alert>(&alert)) {
        auto &tracker = trackers_[answer->tracker_url()];
        tracker.state = ZEST_TRACKER_WORKING;
        tracker.message.clear();
        tracker.peers = static_cast<std::uint32_t>(std::max(0, answer->num_peers));
    } else if (auto const *error = lt::alert_cast<lt::tracker_error_alert>(&alert)) {
        auto &tracker = trackers_[error->tracker_url()];
        tracker.state = ZEST_TRACKER_FAILING;
        auto const *const said = error->failure_reason();
        tracker.message = printable(said && *said ? said : error->error.message());
    }
}

std::uint32_t Discovery::dht_nodes() const {
    std::uint32_t sum = 0;
    for (auto const &entry : nodes_) sum += entry.second;
    return sum;
}

std::vector<zest_tracker_info> Discovery::trackers() const {
    std::vector<zest_tracker_info> out;
    for (auto const &url : settings_.trackers) {
        auto const &tracker = trackers_.at(url);
        zest_tracker_info info{};
        info.state = tracker.state;
        info.peers = tracker.peers;
        copy_text(info.url, sizeof info.url, url);
        copy_text(info.message, sizeof info.message, tracker.message);
        out.push_back(info);
    }
    return out;
}

}  // namespace zest

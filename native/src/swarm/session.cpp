#include "session.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/alert_types.hpp>
#include <libtorrent/disabled_disk_io.hpp>
#include <libtorrent/ip_filter.hpp>
#include <libtorrent/session_params.hpp>
#include <libtorrent/settings_pack.hpp>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "clock.hpp"
#include "peer.hpp"
#include "settings.hpp"
#include "swarms.hpp"

namespace zest {
namespace {

using std::chrono::milliseconds;

constexpr unsigned reader_threads = 2;
// For how long it counts that a peer gave something.
constexpr std::int64_t remembered_gift_ms = 60'000;
constexpr std::size_t max_left = 1024;
// Connections that one host may make. More nodes than that behind one address take their turn.
constexpr std::uint32_t max_callers_per_host = 64;
// While something is open, deadlines are looked at so often; else so often, for nothing has to happen in time then.
constexpr std::int64_t busy_tick_ms = 50;
constexpr std::int64_t idle_tick_ms = 1000;
// Who waits for more of something is told that often.
constexpr std::int64_t update_ms = 100;
constexpr std::int64_t sweep_ms = 5000;
// Two nodes that dial each other do so at about the same time. A connection that is older is in use.
constexpr std::int64_t settled_ms = 5000;

// Threads of ours never run the program's signal handlers.
class BlockSignals {
public:
    BlockSignals() {
        sigset_t all;
        sigfillset(&all);
        // A fault is reported where it happens.
        for (int const fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_;
};

std::optional<SwarmSecret> secret_of(zest_session_config const &config) {
    if (config.swarm_key_size == 0) return std::nullopt;
    // Who is in a keyed swarm is nobody's business, and anybody can crawl the DHT.
    if (config.dht) throw std::runtime_error("a swarm with a key does not use the DHT");
    return SwarmSecret(Bytes{config.swarm_key, config.swarm_key_size});
}

}  // namespace

Session::Session(zest_session_config const &config)
    : secret_(secret_of(config)),
      names_(secret_ ? SwarmNames(secret_->names) : SwarmNames()),
      hash_file_(std::make_shared<HashFile>(config.scratch_dir ? config.scratch_dir : "")),
      opened_(secret_ ? wire::max_message_bytes : 0),
      work_(boost::asio::make_work_guard(network_)),
      timer_(network_),
      upload_turns_(network_),
      download_turns_(network_),
      host_{store_,
            drafts_,
            readers_,
            upload_turns_,
            updates_,
            [this](std::function<void()> f) { post(std::move(f)); },
            [this](Link const &link) { return link.gave_ms >= 0 && now_ms() - link.gave_ms < remembered_gift_ms; },
            [this](SharedFilePtr const &file) {
                // That a transfer was closed is no news to anybody here.
                if (!store_.remove(file) || file->transfer) return;
                zest_event event{};
                event.type = ZEST_EVENT_SHARE_LOST;
                events_.push(event, file->path);
            },
            [this] { tick_soon(); }},
      swarms_(std::make_shared<Swarms>(*this)),
      discovery_(DiscoverySettings(config), *swarms_) {
    std::copy_n(config.node_id, node_id_.size(), node_id_.begin());
    // Time for a connection and BitTorrent's handshake, and as much again for the extensions'.
    handshake_ms_ = 2 * std::int64_t{config.connect_timeout_ms};
    lt::session_params params(settings_for(config), {swarms_});
    params.disk_io_constructor = lt::disabled_disk_io_constructor;

    BlockSignals const blocked;
    readers_.start(reader_threads);
    write_queue_.start();
    session_ = std::make_unique<lt::session>(std::move(params), network_);
    thread_ = std::thread([this] {
        for (;;) {
            try {
                network_.run();
                return;
            } catch (std::exception const &) {
                // A lack of memory in one handler is no reason to end the process that we are a guest in.
            }
        }
    });
    try {
        port_ = listen(config);
        // Caps hold for everybody: by default libtorrent exempts addresses that look local.
        lt::ip_filter classes;
        auto const everybody = std::uint32_t{1} << static_cast<std::uint32_t>(lt::session::global_peer_class_id);
        classes.add_rule(lt::make_address("0.0.0.0"), lt::make_address("255.255.255.255"), everybody);
        classes.add_rule(lt::make_address("::"), lt::make_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                         everybody);
        session_->set_peer_class_filter(classes);
        auto started = std::make_shared<std::promise<void>>();
        post([this, started] {
            try {
                swarms_->start();
                discovery_.start(port_);
                // Also: libtorrent turns every incoming connection away while it holds no torrent at all.
                swarms_->load(names_.rendezvous(), now_ms());
                started->set_value();
            } catch (...) {
                started->set_exception(std::current_exception());
            }
        });
        started->get_future().get();
        session_->set_alert_notify([this] { post([this] { take_alerts(); }); });
    } catch (...) {
        auto const end = session_->abort();
        session_.reset();
        work_.reset();
        thread_.join();
        throw;
    }
    post([this, up = config.max_up_bytes_s, down = config.max_down_bytes_s] {
        upload_turns_.set_cap(up);
        download_turns_.set_cap(down);
    });
    post([this] { tick(); });
}

Session::~Session() {
    closing_ = true;
    post([this] {
        timer_.cancel();
        upload_turns_.stop();
        download_turns_.stop();
    });
    {
        auto const end = session_->abort();
        session_.reset();
        work_.reset();
        thread_.join();
    }
    readers_.stop();
    write_queue_.stop();
}

std::uint16_t Session::listen(zest_session_config const &config) {
    auto const hosts = listen_addresses(config.listen_host);
    std::uint32_t const wanted = config.listen_port;
    auto const last = wanted == 0 ? 0 : std::min<std::uint32_t>(wanted + config.port_retries, 65535);
    std::string why = "no answer from the system";
    // Somebody else may be quicker between finding a free port and taking it.
    for (int attempt = 0; attempt < 5; ++attempt) {
        auto const port = free_port(hosts, wanted, last);
        lt::settings_pack pack;
        pack.set_str(lt::settings_pack::listen_interfaces, interfaces(hosts, port));
        session_->apply_settings(std::move(pack));
        auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
        bool failed = false;
        while (!failed && std::chrono::steady_clock::now() < deadline) {
            session_->wait_for_alert(milliseconds(100));
            std::vector<lt::alert *> alerts;
            session_->pop_alerts(&alerts);
            for (auto const *alert : alerts) {
                if (auto const *ok = lt::alert_cast<lt::listen_succeeded_alert>(alert); ok && ok->port == port) {
                    lt::settings_pack quiet;
                    quiet.set_int(lt::settings_pack::alert_mask,
                                  lt::alert_category::tracker | lt::alert_category::dht_operation);
                    session_->apply_settings(std::move(quiet));
                    return port;
                }
                if (auto const *bad = lt::alert_cast<lt::listen_failed_alert>(alert); bad && bad->port == port) {
                    why = bad->error.message();
                    failed = true;
                }
            }
        }
    }
    throw std::runtime_error("cannot listen on " + hosts.front().to_string() + ", port " + std::to_string(wanted) +
                             ": " + why);
}

void Session::set_caps(std::uint64_t up_bytes_s, std::uint64_t down_bytes_s) {
    post([this, up_bytes_s, down_bytes_s] {
        upload_turns_.set_cap(up_bytes_s);
        download_turns_.set_cap(down_bytes_s);
    });
}

void Session::set_uploads(bool on) {
    post([this, on] {
        host_.uploads = on;
        if (on) return;
        // Apart: who is hung up on goes from the list.
        std::vector<std::shared_ptr<Peer>> connected;
        for (auto const &[number, weak] : peers_)
            if (auto peer = weak.lock()) connected.push_back(std::move(peer));
        for (auto const &peer : connected) peer->responder->refuse_all();
    });
}

void Session::post(std::function<void()> f) { boost::asio::post(network_, std::move(f)); }

std::int64_t Session::now_ms() const { return steady_ms(); }

void Session::tick() {
    if (closing_) return;
    auto const now = now_ms();
    auto next = look_after_peers(now);
    discovery_.tick(now);
    dial_found(now);
    exchange_.tick(peers_, now);
    claims_told_.tick(peers_, now);
    claims_heard_.tick(now);
    if (now - swept_ms_ >= sweep_ms) sweep(now);
    if (now - updated_ms_ >= update_ms) {
        updated_ms_ = now;
        updates_.tick();
    }
    if (!updates_.idle()) next = std::min(next, updated_ms_ + update_ms);
    if (!dials_.empty() || discovery_.dialer.flying()) next = now + busy_tick_ms;
    next = std::min(next, claims_told_.due_ms());
    next_tick_ms_ = std::max(now + 1, std::min(next, discovery_.due_ms()));
    timer_.expires_after(milliseconds(next_tick_ms_ - now));
    timer_.async_wait([this](boost::system::error_code const &error) {
        if (!error) tick();
    });
}

// Something was begun: the timer may be set for a time when nothing was expected.
void Session::tick_soon() {
    if (next_tick_ms_ - now_ms() <= busy_tick_ms) return;
    next_tick_ms_ = 0;
    timer_.cancel();
    post([this] { tick(); });
}

// When they want to be looked after again.
std::int64_t Session::look_after_peers(std::int64_t now) {
    // A timeout may end a connection, which changes the map.
    std::vector<std::shared_ptr<Peer>> all;
    all.reserve(peers_.size());
    for (auto const &entry : peers_)
        if (auto peer = entry.second.lock()) all.push_back(std::move(peer));
    bool busy = false;
    bool followed = false;
    for (auto const &peer : all) {
        peer->requester.tick(now);
        peer->responder->tick();
        if (peer->requester.open()) busy = true;
        if (peer->responder->is_followed()) followed = true;
        if (peer->link.ready) continue;
        busy = true;
        if (now - peer->link.since_ms > handshake_ms_) peer->link.disconnect("did not complete the handshakes");
    }
    for (auto at = dials_.begin(); at != dials_.end();) {
        auto const here = at++;
        if (now <= here->second.until_ms) continue;
        auto const dial = here->second;
        auto const endpoint = here->first.second;
        dials_.erase(here);
        dial_ended(endpoint, dial, "could not be dialled");
    }
    return now + (followed ? Responder::follow_tick_ms : busy ? busy_tick_ms : idle_tick_ms);
}

void Session::sweep(std::int64_t now) {
    swept_ms_ = now;
    readers_.submit([this] { readers_.files.close_idle(); });
    forget_idle_blocks();
    std::map<InfoHash, std::size_t> in_use{{names_.rendezvous(), 1}};
    for (auto const &entry : peers_)
        if (auto const peer = entry.second.lock()) ++in_use[peer->swarm];
    for (auto const &entry : dials_) ++in_use[entry.first.first];
    swarms_->sweep(in_use, now);
}

void Session::take_alerts() {
    if (closing_) return;
    std::vector<lt::alert *> alerts;
    swarms_->session().pop_alerts(&alerts);
    auto const now = now_ms();
    for (auto const *alert : alerts) discovery_.on_alert(*alert, now);
    tick_soon();
}

bool Session::dial(std::string const &host, std::uint16_t port, std::optional<InfoHash> swarm, std::uint64_t token) {
    lt::error_code error;
    auto const address = lt::make_address(host, error);
    if (error || port == 0) return false;
    post([this, where = swarm.value_or(names_.rendezvous()), endpoint = Endpoint(address, port), token] {
        begin_dial(where, endpoint, {token, Source::given, 0});
        tick_soon();
    });
    return true;
}

void Session::join(Kind kind, Hash const &hash, bool announce) {
    post([this, kind, hash, swarm = names_.of(kind, hash), announce] {
        if (kind == Kind::file) store_.seek(hash);
        discovery_.join(swarm, kind, announce, now_ms());
        tick_soon();
    });
}

void Session::leave(Kind kind, Hash const &hash) {
    post([this, kind, hash, swarm = names_.of(kind, hash)] {
        if (kind == Kind::file) store_.seek_no_more(hash);
        say_claims(swarm, false, {});
        bool const in_use = std::any_of(peers_.begin(), peers_.end(), [&](auto const &entry) {
            auto const peer = entry.second.lock();
            return peer && peer->swarm == swarm && !peer->link.gone();
        });
        discovery_.leave(swarm, in_use);
    });
}

void Session::add_tracker(std::string url) {
    post([this, url = std::move(url)] {
        discovery_.add_tracker(url);
        tick_soon();
    });
}

void Session::add_dht_node(std::string host, std::uint16_t port) {
    post([this, node = std::make_pair(std::move(host), int{port})] { swarms_->session().add_dht_node(node); });
}

void Session::tell_claims(Hash const &file, bool downloading, std::vector<wire::Claim> claims) {
    post([this, swarm = names_.of(Kind::file, file), downloading, claims = std::move(claims)]() mutable {
        say_claims(swarm, downloading, std::move(claims));
    });
}

void Session::say_claims(InfoHash const &swarm, bool downloading, std::vector<wire::Claim> claims) {
    claims_told_.say(swarm, downloading, std::move(claims), peers_);
    claims_told_.tick(peers_, now_ms());
    if (claims_told_.due_ms() < next_tick_ms_) tick_soon();
}

void Session::proved(Peer &peer, InfoHash const &swarm) {
    claims_told_.proved(peer, swarm);
    claims_told_.tick(peers_, now_ms());
    if (claims_told_.due_ms() < next_tick_ms_) tick_soon();
}

void Session::told(Peer &peer, wire::Claims const &message) {
    if (!peer.link.common().count(message.swarm) || !discovery_.joined(message.swarm)) return;
    auto const object = store_.find_swarm(message.swarm);
    if (object && object->kind == Kind::file) claims_heard_.heard(peer.link.number(), object->hash, message, now_ms());
}

void Session::heard_of(InfoHash const &swarm, Endpoint const &endpoint, Source source, Scope teller) {
    if (closing_) return;
    discovery_.heard(swarm, endpoint, source, teller, now_ms());
    // We are inside of libtorrent, and ten thousand more may follow.
    if (std::exchange(heard_, true)) return;
    post([this] {
        heard_ = false;
        if (!closing_) dial_found(now_ms());
        tick_soon();
    });
}

void Session::told(Peer &peer, wire::Peers const &message) {
    // Answers to a question that we gave up on may make it know more of us than we of it; nobody else tells us this.
    if (!peer.link.common().count(message.swarm) || !discovery_.joined(message.swarm)) return;
    auto const now = now_ms();
    auto const teller = scope_of(peer.link.remote().address());
    auto const count = exchange_.admit(peer.link.number(), message.peers.size(), now);
    for (std::size_t i = 0; i < count; ++i) {
        auto const &[bytes, port] = message.peers[i];
        heard_of(message.swarm, {lt::address_v6(bytes), port}, Source::pex, teller);
    }
}

void Session::dial_found(std::int64_t now) {
    auto const due = discovery_.dialer.due(now, [this](Endpoint const &endpoint) { return is_taken(endpoint); });
    for (auto const &found : due) begin_dial(found.swarm, found.endpoint, {0, found.source, 0});
}

bool Session::is_taken(Endpoint const &endpoint) const {
    return taken_.count(endpoint) != 0 || bans_.has_host(endpoint.address().to_string());
}

// What libtorrent makes of a dial is not always told: here every one gets an end.
bool Session::begin_dial(InfoHash const &swarm, Endpoint const &endpoint, Dial dial) {
    dial.until_ms = now_ms() + handshake_ms_ + 2000;
    if (bans_.has_host(endpoint.address().to_string())) {
        dial_ended(endpoint, dial, "is banned");
        return false;
    }
    for (auto const &entry : peers_) {
        auto const peer = entry.second.lock();
        if (!peer || !peer->link.outgoing() || peer->link.gone() || peer->link.remote() != endpoint) continue;
        if (peer->link.ready || peer->swarm == swarm) {
            dial_ended(endpoint, dial, peer->link.ready ? "is connected already" : "is being dialled already");
            return false;
        }
    }
    auto const [at, fresh] = dials_.try_emplace({swarm, endpoint}, dial);
    if (!fresh) {
        dial_ended(endpoint, at->second, "was dialled again");
        at->second = dial;
    }
    swarms_->connect(swarm, endpoint, now_ms());
    return true;
}

void Session::dial_ended(Endpoint const &endpoint, Dial const &dial, char const *why) {
    if (dial.source != Source::given) return discovery_.dialer.ended(endpoint, Dialer::End::failed, now_ms());
    zest_event event{};
    event.type = ZEST_EVENT_PEER_GONE;
    event.token = dial.token;
    events_.push(event, std::string_view(why));
}

std::shared_ptr<Peer> Session::make_peer(lt::peer_connection_handle const &connection, InfoHash const &swarm) {
    Dial dial{0, Source::incoming, 0};
    if (connection.is_outgoing()) {
        dial.source = Source::given;
        auto const found = dials_.find({swarm, connection.remote()});
        if (found != dials_.end()) {
            dial = found->second;
            dials_.erase(found);
        }
    }
    auto const number = next_peer_++;
    auto peer = std::make_shared<Peer>(*this, connection, swarm, number, dial.token);
    peer->source = dial.source;
    peers_[number] = peer;
    if (peer->link.outgoing()) {
        peer->listens = plain(peer->link.remote());
        ++taken_[*peer->listens];
    } else if (++callers_[peer->link.host()] > max_callers_per_host) {
        peer->link.disconnect("has too many connections from its host");
    }
    tick_soon();
    return peer;
}

void Session::ready(Peer &peer) {
    if (peer.link.outgoing()) return discovery_.dialer.ready(*peer.listens, now_ms());
    if (peer.listens) ++taken_[*peer.listens];
}

char const *Session::refusal(Peer &peer) {
    auto const &id = peer.link.node_id;
    if (id == node_id_) return "is this node itself";
    if (bans_.has(identity_of(peer))) return "is banned";
    if (!is_named(id)) return nullptr;
    // Both ends dialled: both keep the connection that the smaller node id opened.
    for (auto const &entry : peers_) {
        auto const other = entry.second.lock();
        if (!other || other.get() == &peer || !other->link.ready || other->link.gone() || other->link.node_id != id)
            continue;
        bool const ours_wins = node_id_ < id;
        if (peer.link.outgoing() == other->link.outgoing() || other->link.outgoing() == ours_wins ||
            now_ms() - other->link.since_ms >= settled_ms)
            return peer.twin = true, "is connected already";
        other->twin = true;
        other->link.disconnect("is connected twice");
    }
    return nullptr;
}

void Session::leave_place(Peer &peer) {
    auto const caller = callers_.find(peer.link.host());
    if (!peer.link.outgoing() && caller != callers_.end() && --caller->second == 0) callers_.erase(caller);
    if (peer.listens && (peer.link.outgoing() || peer.link.ready)) {
        auto const at = taken_.find(*peer.listens);
        if (at != taken_.end() && --at->second == 0) taken_.erase(at);
    }
    if (closing_) return;
    if (peer.link.outgoing() && peer.source != Source::given) {
        auto const end = peer.link.node_id == node_id_ ? Dialer::End::ourselves
                         : peer.twin                   ? Dialer::End::twin
                         : peer.link.ready             ? Dialer::End::left
                                                       : Dialer::End::failed;
        discovery_.dialer.ended(*peer.listens, end, now_ms());
    } else {
        discovery_.dialer.vacant();
    }
    tick_soon();
}

void Session::gone(Peer &peer, std::string const &why) {
    gone_bytes_up_ += peer.responder->bytes_up();
    for (auto const &[file, bytes] : peer.responder->served()) gone_served_[file] += bytes;
    gone_bytes_down_ += peer.requester.bytes_down();
    gone_chunks_wrong_ += peer.requester.chunks_wrong();
    if (peer.link.ready && !peer.link.banned) {
        left_[peer.link.number()] = identity_of(peer);
        if (left_.size() > max_left) left_.erase(left_.begin());
    }
    peers_.erase(peer.link.number());
    exchange_.gone(peer.link.number());
    claims_heard_.gone(peer.link.number());
    claims_told_.gone(peer.link.number());
    leave_place(peer);
    // Who comes and goes without a word is nobody's business, however often.
    if (!peer.link.ready && peer.link.token() == 0) return;
    zest_event event{};
    event.type = ZEST_EVENT_PEER_GONE;
    event.peer = peer.link.number();
    event.token = peer.link.token();
    events_.push(event, why);
}

void Session::remember_ban(std::uint32_t number, Identity who, std::string const &reason) {
    zest_event event{};
    event.type = ZEST_EVENT_PEER_BANNED;
    event.peer = number;
    event.token = who.token;
    events_.push(event, who.address + " " + reason);
    bans_.add(std::move(who), reason);
}

void Session::liar(Peer &peer, std::string const &reason) {
    if (peer.link.banned) return;
    peer.link.banned = true;
    remember_ban(peer.link.number(), identity_of(peer), reason);
    peer.link.disconnect("banned: " + reason);
}

void Session::ban(std::uint32_t number, std::string reason) {
    post([this, number, reason = std::move(reason)] {
        auto const found = peers_.find(number);
        if (auto const peer = found == peers_.end() ? nullptr : found->second.lock()) return liar(*peer, reason);
        auto const left = left_.find(number);
        if (left == left_.end()) return;
        remember_ban(number, std::move(left->second), reason);
        left_.erase(left);
    });
}

void Session::with_peer(std::uint32_t number, std::function<void(Peer &)> f, std::function<void()> otherwise) {
    post([this, number, f = std::move(f), otherwise = std::move(otherwise)] {
        auto const found = peers_.find(number);
        auto const peer = found == peers_.end() ? nullptr : found->second.lock();
        if (!peer || !peer->link.ready || peer->link.gone()) return otherwise();
        f(*peer);
        if (peer->requester.open()) tick_soon();
    });
}

}  // namespace zest

#include "session.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
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

#include "peer.hpp"

namespace zest {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds tick_interval{50};
constexpr unsigned reader_threads = 2;
constexpr std::size_t max_bans = 4096;
constexpr std::size_t max_left = 1024;
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

// A port that is free on every interface: libtorrent binds each interface on its own, and would use another port on
// each when it is taken on one of them, or when any will do. Throws with one line.
std::uint16_t free_port(lt::address const &host, std::uint32_t first, std::uint32_t last) {
    int error = 0;
    for (auto port = first; port <= last; ++port) {
        int const fd = ::socket(host.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot open a socket");
        lt::tcp::endpoint at(host, static_cast<std::uint16_t>(port));
        int const on = 1;
        ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (host.is_v6()) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        auto size = static_cast<socklen_t>(at.capacity());
        bool const ok = ::bind(fd, at.data(), static_cast<socklen_t>(at.size())) == 0 && ::listen(fd, 1) == 0 &&
                        ::getsockname(fd, at.data(), &size) == 0;
        error = errno;
        ::close(fd);
        if (ok) return at.port();
        if (error != EADDRINUSE) break;
    }
    auto const ports = std::to_string(first) + (last > first ? " to " + std::to_string(last) : "");
    throw std::runtime_error("cannot listen on " + host.to_string() + ", port " + ports + ": " +
                             std::generic_category().message(error));
}

std::string bracketed(std::string const &host) {
    return host.find(':') != std::string::npos && host.front() != '[' ? "[" + host + "]" : host;
}

lt::settings_pack settings_for(zest_session_config const &config) {
    lt::settings_pack pack;
    using sp = lt::settings_pack;
    pack.set_str(sp::listen_interfaces, "");
    pack.set_int(sp::max_retry_port_bind, 0);
    pack.set_bool(sp::listen_system_port_fallback, false);
    pack.set_str(sp::user_agent, "zest_hf");
    pack.set_str(sp::peer_fingerprint, "-ZH0100-");
    pack.set_int(sp::alert_mask, lt::alert_category::status | lt::alert_category::error);

    // Nothing speaks to the outside unless it was asked to.
    pack.set_bool(sp::enable_dht, false);
    pack.set_bool(sp::enable_lsd, false);
    pack.set_bool(sp::enable_upnp, false);
    pack.set_bool(sp::enable_natpmp, false);
    pack.set_bool(sp::enable_incoming_utp, false);
    pack.set_bool(sp::enable_outgoing_utp, false);
    pack.set_int(sp::in_enc_policy, sp::pe_enabled);
    pack.set_int(sp::out_enc_policy, sp::pe_disabled);

    // A peer is told by its node id; many of them may share an address (ranks of a job, containers, NAT).
    pack.set_bool(sp::allow_multiple_connections_per_ip, true);
    pack.set_int(sp::connections_limit, 4000);
    pack.set_int(sp::connection_speed, 500);
    pack.set_int(sp::listen_queue_size, 3000);
    pack.set_int(sp::torrent_connect_boost, 255);
    pack.set_int(sp::peer_turnover, 0);
    pack.set_bool(sp::close_redundant_connections, false);
    pack.set_int(sp::active_downloads, -1);
    pack.set_int(sp::active_seeds, -1);
    pack.set_int(sp::active_limit, -1);
    pack.set_int(sp::mixed_mode_algorithm, sp::prefer_tcp);
    pack.set_int(sp::tick_interval, static_cast<int>(tick_interval.count()));
    auto const connect_s = static_cast<int>((config.connect_timeout_ms + 999) / 1000);
    pack.set_int(sp::peer_connect_timeout, std::max(1, connect_s));
    pack.set_int(sp::handshake_timeout, std::max(1, connect_s));
    pack.set_int(sp::min_reconnect_time, 1);
    pack.set_int(sp::max_failcount, 31);
    pack.set_int(sp::max_peer_recv_buffer_size, 4 * 1024 * 1024);
    auto const limit = [](std::uint64_t value) { return static_cast<int>(std::min<std::uint64_t>(value, INT32_MAX)); };
    pack.set_int(sp::upload_rate_limit, limit(config.max_up_bytes_s));
    pack.set_int(sp::download_rate_limit, limit(config.max_down_bytes_s));
    return pack;
}

std::optional<SwarmSecret> secret_of(zest_session_config const &config) {
    if (config.swarm_key_size == 0) return std::nullopt;
    return SwarmSecret(Bytes{config.swarm_key, config.swarm_key_size});
}

void copy_text(char *out, std::size_t capacity, std::string const &text) {
    auto const n = std::min(capacity - 1, text.size());
    std::memcpy(out, text.data(), n);
    out[n] = 0;
}

}  // namespace

// libtorrent's hooks: a swarm for every hash of ours that a peer names, a Peer for every connection.
class Swarms final : public lt::plugin {
public:
    explicit Swarms(Session &session) : session_(session) {}

    std::shared_ptr<lt::torrent_plugin> new_torrent(lt::torrent_handle const &torrent, lt::client_data_t) override {
        auto const hashes = torrent.info_hashes();
        InfoHash name;
        std::memcpy(name.data(), hashes.v1.data(), name.size());
        return std::make_shared<Swarm>(session_, name);
    }

    bool on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                            lt::add_torrent_params &params) override {
        InfoHash wanted;
        std::memcpy(wanted.data(), info_hash.v1.data(), wanted.size());
        // A stranger who names nothing that we hold is turned away by libtorrent.
        if (!session_.store_.knows_swarm(wanted)) return false;
        fill(params, wanted);
        return true;
    }

    static void fill(lt::add_torrent_params &params, InfoHash const &swarm) {
        params.info_hashes = lt::info_hash_t(lt::sha1_hash(reinterpret_cast<char const *>(swarm.data())));
        params.save_path = ".";
        params.flags = lt::torrent_flags::disable_dht | lt::torrent_flags::disable_lsd | lt::torrent_flags::disable_pex;
    }

private:
    class Swarm final : public lt::torrent_plugin {
    public:
        Swarm(Session &session, InfoHash const &name) : session_(session), name_(name) {}
        std::shared_ptr<lt::peer_plugin> new_connection(lt::peer_connection_handle const &connection) override {
            if (connection.type() != lt::connection_type::bittorrent) return nullptr;
            return session_.make_peer(connection, name_);
        }

    private:
        Session &session_;
        InfoHash const name_;
    };

    Session &session_;
};

Session::Session(zest_session_config const &config)
    : secret_(secret_of(config)),
      names_(secret_ ? SwarmNames(secret_->names) : SwarmNames()),
      opened_(secret_ ? wire::max_message_bytes : 0),
      host_{store_, readers_, [this](std::function<void()> f) { post(std::move(f)); },
            [this](SharedFilePtr const &file) {
                if (!store_.remove(file)) return;
                zest_event event{};
                event.type = ZEST_EVENT_SHARE_LOST;
                events_.push(event, file->path);
            }},
      work_(boost::asio::make_work_guard(network_)),
      timer_(network_) {
    std::copy_n(config.node_id, node_id_.size(), node_id_.begin());
    // Time for a connection and BitTorrent's handshake, and as much again for the extensions'.
    handshake_ms_ = 2 * std::int64_t{config.connect_timeout_ms};
    lt::session_params params(settings_for(config), {std::make_shared<Swarms>(*this)});
    params.disk_io_constructor = lt::disabled_disk_io_constructor;

    BlockSignals const blocked;
    readers_.start(reader_threads);
    session_ = std::make_unique<lt::session>(std::move(params), network_);
    impl_ = session_->native_handle();
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
        // Also: libtorrent turns every incoming connection away while it holds no torrent at all.
        join(names_.rendezvous());
    } catch (...) {
        auto const end = session_->abort();
        session_.reset();
        work_.reset();
        thread_.join();
        throw;
    }
    post([this] { tick(); });
}

Session::~Session() {
    closing_ = true;
    post([this] { timer_.cancel(); });
    {
        auto const end = session_->abort();
        session_.reset();
        swarms_.clear();
        work_.reset();
        thread_.join();
    }
    readers_.stop();
}

std::uint16_t Session::listen(zest_session_config const &config) {
    lt::error_code bad_address;
    auto const host = lt::make_address(*config.listen_host ? config.listen_host : "0.0.0.0", bad_address);
    if (bad_address)
        throw std::runtime_error("cannot listen on " + std::string(config.listen_host) + ": not a numeric address");
    std::uint32_t const wanted = config.listen_port;
    auto const last = wanted == 0 ? 0 : std::min<std::uint32_t>(wanted + config.port_retries, 65535);
    std::string why = "no answer from the system";
    // Somebody else may be quicker between finding a free port and taking it.
    for (int attempt = 0; attempt < 5; ++attempt) {
        auto const port = free_port(host, wanted, last);
        lt::settings_pack pack;
        pack.set_str(lt::settings_pack::listen_interfaces, bracketed(host.to_string()) + ":" + std::to_string(port));
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
                    quiet.set_int(lt::settings_pack::alert_mask, 0);
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
    throw std::runtime_error("cannot listen on " + host.to_string() + ", port " + std::to_string(wanted) + ": " + why);
}

void Session::post(std::function<void()> f) { boost::asio::post(network_, std::move(f)); }

std::int64_t Session::now_ms() const {
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Session::tick() {
    if (closing_) return;
    auto const now = now_ms();
    // A timeout may end a connection, which changes the map.
    std::vector<std::shared_ptr<Peer>> all;
    all.reserve(peers_.size());
    for (auto const &entry : peers_)
        if (auto peer = entry.second.lock()) all.push_back(std::move(peer));
    for (auto const &peer : all) {
        peer->requester.tick(now);
        if (!peer->link.ready && now - peer->link.since_ms > handshake_ms_)
            peer->link.disconnect("did not complete the handshakes");
    }
    for (auto at = dials_.begin(); at != dials_.end();) {
        auto const late = now > at->second.until_ms;
        if (late) dial_ended(at->second.token, "could not be dialled");
        at = late ? dials_.erase(at) : std::next(at);
    }
    if (++ticks_ % 100 == 0) readers_.submit([this] { readers_.files.close_idle(); });
    timer_.expires_after(tick_interval);
    timer_.async_wait([this](boost::system::error_code const &error) {
        if (!error) tick();
    });
}

lt::torrent_handle Session::join(InfoHash const &swarm) {
    std::lock_guard lock(swarms_mutex_);
    auto const found = swarms_.find(swarm);
    if (found != swarms_.end() && found->second.is_valid()) return found->second;
    lt::add_torrent_params params;
    Swarms::fill(params, swarm);
    auto handle = session_->add_torrent(std::move(params));
    swarms_[swarm] = handle;
    return handle;
}

bool Session::dial(std::string const &host, std::uint16_t port, std::optional<InfoHash> swarm, std::uint64_t token) {
    lt::error_code error;
    auto const address = lt::make_address(host, error);
    if (error || port == 0) return false;
    auto const where = swarm.value_or(names_.rendezvous());
    // Waits for the network thread, so it runs on the caller's.
    auto const torrent = join(where);
    post([this, torrent, where, endpoint = lt::tcp::endpoint(address, port), token] {
        if (begin_dial(where, endpoint, token)) connect_now(impl_, torrent, where, endpoint);
    });
    return true;
}

// What libtorrent makes of a dial is not always told: here every one gets an end.
bool Session::begin_dial(InfoHash const &swarm, lt::tcp::endpoint const &endpoint, std::uint64_t token) {
    for (auto const &entry : peers_) {
        auto const peer = entry.second.lock();
        if (!peer || !peer->link.outgoing() || peer->link.gone() || peer->link.remote() != endpoint) continue;
        if (peer->link.ready || peer->swarm == swarm) {
            dial_ended(token, peer->link.ready ? "is connected already" : "is being dialled already");
            return false;
        }
    }
    auto const [at, fresh] = dials_.try_emplace({swarm, endpoint});
    if (!fresh) dial_ended(at->second.token, "was dialled again");
    at->second = {token, now_ms() + handshake_ms_ + 2000};
    return true;
}

void Session::dial_ended(std::uint64_t token, char const *why) {
    zest_event event{};
    event.type = ZEST_EVENT_PEER_GONE;
    event.token = token;
    events_.push(event, std::string_view(why));
}

std::shared_ptr<Peer> Session::make_peer(lt::peer_connection_handle const &connection, InfoHash const &swarm) {
    std::uint64_t token = 0;
    if (connection.is_outgoing()) {
        auto const found = dials_.find({swarm, connection.remote()});
        if (found != dials_.end()) {
            token = found->second.token;
            dials_.erase(found);
        }
    }
    auto const number = next_peer_++;
    auto peer = std::make_shared<Peer>(*this, connection, swarm, number, token);
    peers_[number] = peer;
    return peer;
}

namespace {

Identity identity_of(Peer const &peer) {
    return {peer.link.node_id, peer.link.host(), peer.link.address(), peer.link.outgoing(), peer.link.token()};
}

bool is_named(std::array<std::uint8_t, 20> const &node_id) { return node_id != std::array<std::uint8_t, 20>{}; }

}  // namespace

// A node id is a name that anybody can give himself: together with the host it tells one program from its neighbours,
// alone it would let a stranger have somebody else banned.
bool Session::is_banned(Identity const &who) const {
    return std::any_of(bans_.begin(), bans_.end(), [&](Ban const &ban) {
        auto const &bad = ban.peer;
        if (who.outgoing && bad.outgoing && bad.address == who.address) return true;
        if (is_named(bad.node_id) || is_named(who.node_id)) return bad.node_id == who.node_id && bad.host == who.host;
        return !who.outgoing && !bad.outgoing && bad.host == who.host;
    });
}

char const *Session::refusal(Peer &peer) {
    auto const &id = peer.link.node_id;
    if (id == node_id_) return "is this node itself";
    if (is_banned(identity_of(peer))) return "is banned";
    if (!is_named(id)) return nullptr;
    // Both ends dialled: both keep the connection that the smaller node id opened.
    for (auto const &entry : peers_) {
        auto const other = entry.second.lock();
        if (!other || other.get() == &peer || !other->link.ready || other->link.gone() || other->link.node_id != id)
            continue;
        bool const ours_wins = node_id_ < id;
        if (peer.link.outgoing() == other->link.outgoing() || other->link.outgoing() == ours_wins ||
            now_ms() - other->link.since_ms >= settled_ms)
            return "is connected already";
        other->link.disconnect("is connected twice");
    }
    return nullptr;
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
    if (bans_.size() < max_bans) bans_.push_back({std::move(who), reason});
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
        if (peer && peer->link.ready && !peer->link.gone())
            f(*peer);
        else
            otherwise();
    });
}

template <typename T>
T Session::ask(std::function<T()> f, T otherwise) {
    auto answer = std::make_shared<std::promise<T>>();
    auto result = answer->get_future();
    post([f = std::move(f), answer] { answer->set_value(f()); });
    // The network thread never blocks; the bound is for a machine in trouble.
    if (result.wait_for(std::chrono::seconds(2)) != std::future_status::ready) return otherwise;
    return result.get();
}

std::vector<zest_peer_info> Session::peers() {
    return ask<std::vector<zest_peer_info>>(
        [this] {
            std::vector<zest_peer_info> out;
            for (auto const &entry : peers_) {
                auto const peer = entry.second.lock();
                if (!peer) continue;
                zest_peer_info info{};
                info.peer = entry.first;
                info.speaks = peer->link.speaks();
                info.token = peer->link.token();
                info.bytes_down = peer->requester.bytes_down();
                info.bytes_up = peer->responder->bytes_up();
                info.requests_out = peer->requester.open();
                info.requests_in = peer->responder->open();
                info.outgoing = peer->link.outgoing();
                info.ready = peer->link.ready;
                std::copy(peer->link.node_id.begin(), peer->link.node_id.end(), info.node_id);
                copy_text(info.address, sizeof info.address, peer->link.address());
                copy_text(info.client, sizeof info.client, peer->link.client);
                out.push_back(info);
            }
            return out;
        },
        {});
}

std::vector<zest_ban_info> Session::bans() {
    return ask<std::vector<zest_ban_info>>(
        [this] {
            std::vector<zest_ban_info> out;
            for (auto const &ban : bans_) {
                zest_ban_info info{};
                std::copy(ban.peer.node_id.begin(), ban.peer.node_id.end(), info.node_id);
                copy_text(info.address, sizeof info.address, ban.peer.address);
                copy_text(info.reason, sizeof info.reason, ban.reason);
                out.push_back(info);
            }
            return out;
        },
        {});
}

std::vector<zest_share_info> Session::shares() {
    return ask<std::vector<zest_share_info>>(
        [this] {
            std::map<Hash, zest_share_info> by_file;
            for (auto const &[file, bytes] : gone_served_) by_file[file].bytes_up = bytes;
            for (auto const &entry : peers_)
                if (auto const peer = entry.second.lock())
                    for (auto const &[file, bytes] : peer->responder->served()) {
                        by_file[file].bytes_up += bytes;
                        by_file[file].peers += 1;
                    }
            std::vector<zest_share_info> out;
            for (auto &[file, info] : by_file) {
                std::copy(file.begin(), file.end(), info.file_hash);
                out.push_back(info);
            }
            return out;
        },
        {});
}

zest_session_stats Session::stats() {
    return ask<zest_session_stats>(
        [this] {
            zest_session_stats out{};
            out.bytes_up = gone_bytes_up_;
            out.bytes_down = gone_bytes_down_;
            out.chunks_wrong = gone_chunks_wrong_;
            for (auto const &entry : peers_) {
                auto const peer = entry.second.lock();
                if (!peer) continue;
                out.bytes_up += peer->responder->bytes_up();
                out.bytes_down += peer->requester.bytes_down();
                out.chunks_wrong += peer->requester.chunks_wrong();
                out.peers_ready += peer->link.ready;
            }
            out.files_shared = store_.files();
            out.xorbs_shared = store_.xorbs();
            out.bans = static_cast<std::uint32_t>(bans_.size());
            return out;
        },
        {});
}

}  // namespace zest

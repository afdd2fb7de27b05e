#include "session.hpp"

#include "peer.hpp"

#include <boost/asio/post.hpp>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/alert_types.hpp>
#include <libtorrent/disabled_disk_io.hpp>
#include <libtorrent/ip_filter.hpp>
#include <libtorrent/session_params.hpp>
#include <libtorrent/settings_pack.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>

namespace zest {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds tick_interval{50};
constexpr unsigned reader_threads = 2;
constexpr std::size_t max_bans = 4096;

// Threads of ours never run the program's signal handlers.
class BlockSignals {
public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
  sigset_t before_;
};

std::string bracketed(std::string const &host) {
  return host.find(':') != std::string::npos && host.front() != '[' ? "[" + host + "]" : host;
}

lt::settings_pack settings_for(zest_session_config const &config) {
  lt::settings_pack pack;
  using sp = lt::settings_pack;
  std::string const host = *config.listen_host ? config.listen_host : "0.0.0.0";
  pack.set_str(sp::listen_interfaces, bracketed(host) + ":" + std::to_string(config.listen_port));
  pack.set_int(sp::max_retry_port_bind, config.port_retries);
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
  pack.set_int(sp::torrent_connect_boost, 50);
  pack.set_int(sp::peer_turnover, 0);
  pack.set_bool(sp::close_redundant_connections, false);
  pack.set_int(sp::active_downloads, -1);
  pack.set_int(sp::active_seeds, -1);
  pack.set_int(sp::active_limit, -1);
  pack.set_int(sp::mixed_mode_algorithm, sp::prefer_tcp);
  // A dial waits for the session's tick.
  pack.set_int(sp::tick_interval, static_cast<int>(tick_interval.count()));
  auto const connect_s = static_cast<int>((config.connect_timeout_ms + 999) / 1000);
  pack.set_int(sp::peer_connect_timeout, std::max(1, connect_s));
  pack.set_int(sp::handshake_timeout, std::max(1, connect_s));
  pack.set_int(sp::min_reconnect_time, 1);
  pack.set_int(sp::max_failcount, 3);
  pack.set_int(sp::max_peer_recv_buffer_size, 4 * 1024 * 1024);
  auto const limit = [](std::uint64_t value) { return static_cast<int>(std::min<std::uint64_t>(value, INT32_MAX)); };
  pack.set_int(sp::upload_rate_limit, limit(config.max_up_bytes_s));
  pack.set_int(sp::download_rate_limit, limit(config.max_down_bytes_s));
  return pack;
}

void copy_text(char *out, std::size_t capacity, std::string const &text) {
  auto const n = std::min(capacity - 1, text.size());
  std::memcpy(out, text.data(), n);
  out[n] = 0;
}

} // namespace

// libtorrent's hooks: a swarm for every hash of ours that a peer names, a Peer for every connection.
class Swarms final : public lt::plugin {
public:
  explicit Swarms(Session &session) : session_(session) {}

  std::shared_ptr<lt::torrent_plugin> new_torrent(lt::torrent_handle const &, lt::client_data_t) override {
    return std::make_shared<Swarm>(session_);
  }

  bool on_unknown_torrent(lt::info_hash_t const &info_hash, lt::peer_connection_handle const &,
                          lt::add_torrent_params &params) override {
    InfoHash wanted;
    std::memcpy(wanted.data(), info_hash.v1.data(), wanted.size());
    // A stranger who names nothing that we hold is turned away by libtorrent.
    if (!session_.store_.knows_swarm(wanted))
      return false;
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
    explicit Swarm(Session &session) : session_(session) {}
    std::shared_ptr<lt::peer_plugin> new_connection(lt::peer_connection_handle const &connection) override {
      if (connection.type() != lt::connection_type::bittorrent)
        return nullptr;
      return session_.make_peer(connection);
    }

  private:
    Session &session_;
  };

  Session &session_;
};

Session::Session(zest_session_config const &config)
    : host_{store_, readers_, [this](std::function<void()> f) { post(std::move(f)); },
                         [this](SharedFilePtr const &file) {
                           store_.remove(file->path, file->hash);
                           zest_event event{};
                           event.type = ZEST_EVENT_SHARE_LOST;
                           events_.push(event, file->path);
                         }},
      work_(boost::asio::make_work_guard(network_)), timer_(network_) {
  std::copy_n(config.node_id, node_id_.size(), node_id_.begin());
  lt::session_params params(settings_for(config), {std::make_shared<Swarms>(*this)});
  params.disk_io_constructor = lt::disabled_disk_io_constructor;

  BlockSignals const blocked;
  readers_.start(reader_threads);
  session_ = std::make_unique<lt::session>(std::move(params), network_);
  thread_ = std::thread([this] { network_.run(); });
  try {
    port_ = wait_for_port(config);
    // Caps hold for everybody: by default libtorrent exempts addresses that look local.
    lt::ip_filter classes;
    auto const everybody = std::uint32_t{1} << static_cast<std::uint32_t>(lt::session::global_peer_class_id);
    classes.add_rule(lt::make_address("0.0.0.0"), lt::make_address("255.255.255.255"), everybody);
    classes.add_rule(lt::make_address("::"), lt::make_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), everybody);
    session_->set_peer_class_filter(classes);
    // Also: libtorrent turns every incoming connection away while it holds no torrent at all.
    join(node_info_hash());
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

std::uint16_t Session::wait_for_port(zest_session_config const &config) {
  auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  std::string why = "no answer from the system";
  while (std::chrono::steady_clock::now() < deadline) {
    session_->wait_for_alert(milliseconds(100));
    std::vector<lt::alert *> alerts;
    session_->pop_alerts(&alerts);
    for (auto const *alert : alerts) {
      if (auto const *ok = lt::alert_cast<lt::listen_succeeded_alert>(alert)) {
        auto const port = static_cast<std::uint16_t>(ok->port);
        lt::settings_pack quiet;
        quiet.set_int(lt::settings_pack::alert_mask, 0);
        session_->apply_settings(std::move(quiet));
        return port;
      }
      if (auto const *bad = lt::alert_cast<lt::listen_failed_alert>(alert))
        throw std::runtime_error("cannot listen on " + std::string(bad->listen_interface()) + ":" +
                                 std::to_string(bad->port) + ": " + bad->error.message());
    }
  }
  throw std::runtime_error("cannot listen on port " + std::to_string(config.listen_port) + ": " + why);
}

void Session::post(std::function<void()> f) { boost::asio::post(network_, std::move(f)); }

std::int64_t Session::now_ms() const {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Session::tick() {
  if (closing_)
    return;
  auto const now = now_ms();
  // A timeout may end a connection, which changes the map.
  std::vector<std::shared_ptr<Peer>> all;
  for (auto const &entry : peers_)
    if (auto peer = entry.second.lock())
      all.push_back(std::move(peer));
  for (auto const &peer : all)
    peer->requester.tick(now);
  if (++ticks_ % 100 == 0)
    readers_.submit([this] { readers_.files.close_idle(); });
  timer_.expires_after(tick_interval);
  timer_.async_wait([this](boost::system::error_code const &error) {
    if (!error)
      tick();
  });
}

lt::torrent_handle Session::join(InfoHash const &swarm) {
  auto const found = swarms_.find(swarm);
  if (found != swarms_.end() && found->second.is_valid())
    return found->second;
  lt::add_torrent_params params;
  Swarms::fill(params, swarm);
  auto handle = session_->add_torrent(std::move(params));
  swarms_[swarm] = handle;
  return handle;
}

bool Session::dial(std::string const &host, std::uint16_t port, std::optional<InfoHash> swarm, std::uint64_t token) {
  lt::error_code error;
  auto const address = lt::make_address(host, error);
  if (error || port == 0)
    return false;
  lt::tcp::endpoint const endpoint(address, port);
  // join() waits for the network thread, so that it runs on the caller's; the dial follows it in order.
  auto const handle = join(swarm.value_or(node_info_hash()));
  post([this, endpoint, token] { dials_[endpoint] = token; });
  handle.connect_peer(endpoint);
  return true;
}

std::shared_ptr<Peer> Session::make_peer(lt::peer_connection_handle const &connection) {
  std::uint64_t token = 0;
  if (connection.is_outgoing()) {
    auto const found = dials_.find(connection.remote());
    if (found != dials_.end())
      token = found->second;
  }
  auto const number = next_peer_++;
  auto peer = std::make_shared<Peer>(*this, connection, number, token);
  peers_[number] = peer;
  return peer;
}

bool Session::admit(Peer &peer) {
  auto const &id = peer.link.node_id;
  bool const named = id != std::array<std::uint8_t, 20>{};
  if (named && id == node_id_)
    return false;
  auto const address = peer.link.address();
  for (auto const &ban : bans_)
    if ((named && ban.node_id == id) || (peer.link.outgoing() && ban.address == address))
      return false;
  if (!named)
    return true;
  // Both ends dialled: both keep the connection that the smaller node id opened.
  for (auto const &entry : peers_) {
    auto const other = entry.second.lock();
    if (!other || other.get() == &peer || !other->link.ready || other->link.gone() || other->link.node_id != id)
      continue;
    bool const ours_wins = node_id_ < id;
    if (peer.link.outgoing() == other->link.outgoing() || other->link.outgoing() == ours_wins)
      return false;
    other->link.disconnect();
  }
  return true;
}

void Session::gone(Peer &peer, std::string const &why) {
  gone_bytes_up_ += peer.responder->bytes_up();
  for (auto const &[file, bytes] : peer.responder->served())
    gone_served_[file] += bytes;
  gone_bytes_down_ += peer.requester.bytes_down();
  gone_chunks_wrong_ += peer.requester.chunks_wrong();
  peers_.erase(peer.link.number());
  zest_event event{};
  event.type = ZEST_EVENT_PEER_GONE;
  event.peer = peer.link.number();
  event.token = peer.link.token();
  events_.push(event, why);
}

void Session::liar(Peer &peer, std::string const &reason) {
  if (bans_.size() < max_bans)
    bans_.push_back({peer.link.node_id, peer.link.address(), reason});
  zest_event event{};
  event.type = ZEST_EVENT_PEER_BANNED;
  event.peer = peer.link.number();
  event.token = peer.link.token();
  events_.push(event, peer.link.address() + " " + reason);
  peer.link.disconnect();
}

void Session::ban(std::uint32_t number, std::string reason) {
  with_peer(
      number, [this, reason = std::move(reason)](Peer &peer) { liar(peer, reason); }, [] {});
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

template <typename T> T Session::ask(std::function<T()> f, T otherwise) {
  auto answer = std::make_shared<std::promise<T>>();
  auto result = answer->get_future();
  post([f = std::move(f), answer] { answer->set_value(f()); });
  // The network thread never blocks; the bound is for a machine in trouble.
  if (result.wait_for(std::chrono::seconds(2)) != std::future_status::ready)
    return otherwise;
  return result.get();
}

std::vector<zest_peer_info> Session::peers() {
  return ask<std::vector<zest_peer_info>>(
      [this] {
        std::vector<zest_peer_info> out;
        for (auto const &entry : peers_) {
          auto const peer = entry.second.lock();
          if (!peer)
            continue;
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
          std::copy(ban.node_id.begin(), ban.node_id.end(), info.node_id);
          copy_text(info.address, sizeof info.address, ban.address);
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
        for (auto const &[file, bytes] : gone_served_)
          by_file[file].bytes_up = bytes;
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
          if (!peer)
            continue;
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

} // namespace zest

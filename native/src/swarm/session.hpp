// The session: a libtorrent session of our own with one network thread, the peers on it, and what is offered.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <libtorrent/extensions.hpp>
#include <libtorrent/io_context.hpp>
#include <libtorrent/session.hpp>
#include <libtorrent/torrent_handle.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bans.hpp"
#include "claims.hpp"
#include "discovery.hpp"
#include "events.hpp"
#include "exchange.hpp"
#include "infohash.hpp"
#include "link.hpp"
#include "reader.hpp"
#include "requester.hpp"
#include "responder.hpp"
#include "secret.hpp"
#include "store.hpp"
#include "swarms.hpp"

namespace zest {

class Peer;

class Session {
public:
    explicit Session(zest_session_config const &config);  // throws std::exception with one line
    ~Session();

    std::uint16_t port() const noexcept { return port_; }
    Events &events() noexcept { return events_; }
    Store &store() noexcept { return store_; }
    Drafts &drafts() noexcept { return drafts_; }
    SwarmNames const &names() const noexcept { return names_; }
    HashFile &hash_file() noexcept { return *hash_file_; }

    // From any thread.
    bool dial(std::string const &host, std::uint16_t port, std::optional<InfoHash> swarm, std::uint64_t token);
    void join(Kind kind, Hash const &hash, bool announce);
    void leave(Kind kind, Hash const &hash);
    void add_tracker(std::string url);
    void add_dht_node(std::string host, std::uint16_t port);
    // What this node does about a file: all who have it in common with us are told.
    void tell_claims(Hash const &file, bool downloading, std::vector<wire::Claim> claims);
    void ban(std::uint32_t peer, std::string reason);
    // Bytes per second; 0: no cap.
    void set_caps(std::uint64_t up_bytes_s, std::uint64_t down_bytes_s);
    // Off: nothing of what is offered is given away.
    void set_uploads(bool on);
    // Run f with the peer on the network thread; when it is gone, `otherwise`.
    void with_peer(std::uint32_t peer, std::function<void(Peer &)> f, std::function<void()> otherwise);
    std::vector<zest_peer_info> peers();
    std::vector<zest_ban_info> bans();
    std::vector<zest_share_info> shares();
    std::vector<zest_tracker_info> trackers();
    zest_session_stats stats();

    // On the network thread, called by peers.
    std::int64_t now_ms() const;
    std::array<std::uint8_t, 20> const &node_id() const noexcept { return node_id_; }
    // Of the keyed swarm that this session is for; nullptr: anybody is talked to.
    SwarmSecret const *secret() const noexcept { return secret_ ? &*secret_ : nullptr; }
    // Room for one opened record, until the next one.
    std::uint8_t *opened() noexcept { return opened_.data(); }
    ResponderHost const &responder_host() const noexcept { return host_; }
    BandwidthTurns &download_turns() noexcept { return download_turns_; }
    WriteQueue &write_queue() noexcept { return write_queue_; }
    std::shared_ptr<Peer> make_peer(lt::peer_connection_handle const &connection, InfoHash const &swarm);
    bool is_joined(InfoHash const &swarm) const { return discovery_.joined(swarm); }
    // A peer of the swarm is said to be there.
    void heard_of(InfoHash const &swarm, Endpoint const &endpoint, Source source, Scope teller = Scope::world);
    void told(Peer &peer, wire::Peers const &message);
    void told(Peer &peer, wire::Claims const &message);
    // The peer and we have proved to know the swarm's object, perhaps once more.
    void proved(Peer &peer, InfoHash const &swarm);
    // A peer said who it is: why this connection is not to be kept (ourselves, banned, a second one), or nullptr.
    char const *refusal(Peer &peer);
    void ready(Peer &peer);
    void gone(Peer &peer, std::string const &why);
    void liar(Peer &peer, std::string const &reason);

private:
    struct Dial {
        std::uint64_t token;
        Source source;
        std::int64_t until_ms;
    };
    void post(std::function<void()> f);
    void tick();
    void tick_soon();
    void say_claims(InfoHash const &swarm, bool downloading, std::vector<wire::Claim> claims);
    std::int64_t look_after_peers(std::int64_t now_ms);
    void dial_found(std::int64_t now_ms);
    void sweep(std::int64_t now_ms);
    bool begin_dial(InfoHash const &swarm, Endpoint const &endpoint, Dial dial);
    void dial_ended(Endpoint const &endpoint, Dial const &dial, char const *why);
    void leave_place(Peer &peer);
    bool is_taken(Endpoint const &endpoint) const;
    void take_alerts();
    std::uint16_t listen(zest_session_config const &config);
    void remember_ban(std::uint32_t number, Identity who, std::string const &reason);
    template <typename T>
    T ask(std::function<T()> f, T otherwise);

    std::array<std::uint8_t, 20> node_id_{};
    Events events_;
    std::optional<SwarmSecret> const secret_;
    SwarmNames const names_;
    std::shared_ptr<HashFile> const hash_file_;
    Store store_{names_};
    Drafts drafts_;
    std::vector<std::uint8_t> opened_;
    ReaderPool readers_;
    WriteQueue write_queue_;
    HaveUpdates updates_{store_, [this] { tick_soon(); },
                         [this](Hash const &xorb) { readers_.submit([this, xorb] { store_.prove(xorb); }); }};
    std::map<std::uint32_t, std::weak_ptr<Peer>> peers_;
    std::map<std::pair<InfoHash, Endpoint>, Dial> dials_;  // that libtorrent has not begun
    std::map<Endpoint, std::uint32_t> taken_;       // where peers listen that are connected or being connected to
    std::map<std::string, std::uint32_t> callers_;  // connections that others made, by host
    Bans bans_;
    std::map<std::uint32_t, Identity> left_;  // who left last: bad news about them may come a moment later
    std::uint32_t next_peer_ = 1;
    bool heard_ = false;  // of new peers, and they will be dialled in a moment
    std::int64_t swept_ms_ = 0;
    std::int64_t updated_ms_ = 0;
    std::int64_t next_tick_ms_ = 0;
    std::uint64_t gone_bytes_up_ = 0;
    std::map<Hash, std::uint64_t> gone_served_;
    std::uint64_t gone_bytes_down_ = 0;
    std::uint64_t gone_chunks_wrong_ = 0;
    std::uint16_t port_ = 0;
    std::int64_t handshake_ms_;

    lt::io_context network_;
    boost::asio::executor_work_guard<lt::io_context::executor_type> work_;
    boost::asio::steady_timer timer_;
    BandwidthTurns upload_turns_;
    BandwidthTurns download_turns_;
    ResponderHost host_;
    std::shared_ptr<Swarms> swarms_;
    Discovery discovery_;
    Exchange exchange_;
    ClaimsHeard claims_heard_{events_};
    ClaimsTold claims_told_;
    std::unique_ptr<lt::session> session_;
    std::thread thread_;
    std::atomic<bool> closing_{false};
};

template <typename T>
T Session::ask(std::function<T()> f, T otherwise) {
    auto answer = std::make_shared<std::promise<T>>();
    auto result = answer->get_future();
    post([f = std::move(f), answer] { answer->set_value(f()); });
    // The network thread never blocks; the bound is for a machine in trouble.
    if (result.wait_for(std::chrono::seconds(2)) != std::future_status::ready) return otherwise;
    return result.get();
}

}  // namespace zest

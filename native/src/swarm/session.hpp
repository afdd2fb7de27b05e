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
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dial.hpp"
#include "events.hpp"
#include "infohash.hpp"
#include "link.hpp"
#include "reader.hpp"
#include "requester.hpp"
#include "responder.hpp"
#include "secret.hpp"
#include "store.hpp"

namespace zest {

class Peer;
class Swarms;

// What is remembered of a peer.
struct Identity {
    std::array<std::uint8_t, 20> node_id;
    std::string host;
    std::string address;
    bool outgoing;
    std::uint64_t token;
};

struct Ban {
    Identity peer;
    std::string reason;
};

class Session {
public:
    explicit Session(zest_session_config const &config);  // throws std::exception with one line
    ~Session();

    std::uint16_t port() const noexcept { return port_; }
    Events &events() noexcept { return events_; }
    Store &store() noexcept { return store_; }
    SwarmNames const &names() const noexcept { return names_; }

    // From any thread.
    bool dial(std::string const &host, std::uint16_t port, std::optional<InfoHash> swarm, std::uint64_t token);
    void ban(std::uint32_t peer, std::string reason);
    // Run f with the peer on the network thread; when it is gone, `otherwise`.
    void with_peer(std::uint32_t peer, std::function<void(Peer &)> f, std::function<void()> otherwise);
    std::vector<zest_peer_info> peers();
    std::vector<zest_ban_info> bans();
    std::vector<zest_share_info> shares();
    zest_session_stats stats();

    // On the network thread, called by peers.
    std::int64_t now_ms() const;
    std::array<std::uint8_t, 20> const &node_id() const noexcept { return node_id_; }
    // Of the keyed swarm that this session is for; nullptr: anybody is talked to.
    SwarmSecret const *secret() const noexcept { return secret_ ? &*secret_ : nullptr; }
    // Room for one opened record, until the next one.
    std::uint8_t *opened() noexcept { return opened_.data(); }
    ResponderHost const &responder_host() const noexcept { return host_; }
    std::shared_ptr<Peer> make_peer(lt::peer_connection_handle const &connection, InfoHash const &swarm);
    // A peer said who it is: why this connection is not to be kept (ourselves, banned, a second one), or nullptr.
    char const *refusal(Peer &peer);
    void gone(Peer &peer, std::string const &why);
    void liar(Peer &peer, std::string const &reason);

private:
    friend class Swarms;
    void post(std::function<void()> f);
    void tick();
    bool begin_dial(InfoHash const &swarm, lt::tcp::endpoint const &endpoint, std::uint64_t token);
    void dial_ended(std::uint64_t token, char const *why);
    lt::torrent_handle join(InfoHash const &swarm);
    std::uint16_t listen(zest_session_config const &config);
    bool is_banned(Identity const &who) const;
    void remember_ban(std::uint32_t number, Identity who, std::string const &reason);
    template <typename T>
    T ask(std::function<T()> f, T otherwise);

    std::array<std::uint8_t, 20> node_id_{};
    Events events_;
    std::optional<SwarmSecret> const secret_;
    SwarmNames const names_;
    Store store_{names_};
    std::vector<std::uint8_t> opened_;
    ReaderPool readers_;
    ResponderHost host_;
    std::map<std::uint32_t, std::weak_ptr<Peer>> peers_;
    struct Dial {
        std::uint64_t token;
        std::int64_t until_ms;
    };
    std::map<std::pair<InfoHash, lt::tcp::endpoint>, Dial> dials_;  // that libtorrent has not begun
    std::vector<Ban> bans_;
    std::map<std::uint32_t, Identity> left_;  // who left last: bad news about them may come a moment later
    std::uint32_t next_peer_ = 1;
    std::uint32_t ticks_ = 0;
    std::uint64_t gone_bytes_up_ = 0;
    std::map<Hash, std::uint64_t> gone_served_;
    std::uint64_t gone_bytes_down_ = 0;
    std::uint64_t gone_chunks_wrong_ = 0;
    std::uint16_t port_ = 0;
    std::int64_t handshake_ms_;

    lt::io_context network_;
    boost::asio::executor_work_guard<lt::io_context::executor_type> work_;
    boost::asio::steady_timer timer_;
    std::mutex swarms_mutex_;  // join() runs on its callers' threads
    std::map<InfoHash, lt::torrent_handle> swarms_;
    std::unique_ptr<lt::session> session_;
    SessionImpl impl_;  // the same, for the network thread, which may outlast it
    std::thread thread_;
    std::atomic<bool> closing_{false};
};

}  // namespace zest

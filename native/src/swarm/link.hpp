// One connection as both halves of the protocol see it: what can be sent on it, and what is known of the peer.
// Used on the network thread only.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <libtorrent/bt_peer_connection.hpp>
#include <libtorrent/peer_connection_handle.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "block_memory.hpp"
#include "proof.hpp"
#include "sealed.hpp"

namespace zest {

// A block of bytes on its way to the socket. `sent` runs on the network thread when the last of it was written or
// the connection ended, from inside libtorrent: it may only post.
struct SendBlock {
    explicit SendBlock(std::size_t bytes) : data(block_bytes(bytes)), size(bytes) {}
    std::uint8_t *at(std::size_t offset) { return reinterpret_cast<std::uint8_t *>(data.get()) + offset; }
    BlockBytes data;  // not cleared: every byte is written before it is sent
    std::size_t size;
    std::function<void()> sent;
};

// Run on the network thread, later.
using Post = std::function<void(std::function<void()>)>;

class Link {
public:
    Link(lt::peer_connection_handle const &connection, std::uint32_t number, std::uint64_t token, Post const &post);

    std::uint32_t number() const noexcept { return number_; }
    std::uint64_t token() const noexcept { return token_; }
    bool outgoing() const noexcept { return outgoing_; }
    std::string address() const;
    lt::tcp::endpoint const &remote() const noexcept { return remote_; }
    std::string host() const;  // the address without the port

    // The extension ids that the peer asked us to use; 0: it does not speak that.
    int xet_id = 0;
    int zest_id = 0;
    NodeId node_id{};
    Nonce nonce{};  // the peer's, for this connection
    End here;       // as we named ourselves
    std::string client;
    bool ready = false;
    bool banned = false;
    std::int64_t since_ms = 0;  // when it became ready; before that, when it began
    std::int64_t gave_ms = -1;  // when it last gave us proved bytes; -1: never

    std::uint32_t speaks() const noexcept;
    End there() const { return {node_id, nonce}; }

    // The swarms of objects that the peer and we have proved to each other, or the peer to us, to know. Others of them
    // may be spoken of. The first max_common of them.
    std::set<InfoHash> const &common() const noexcept { return common_; }
    void add_common(InfoHash const &swarm) {
        if (common_.size() < max_common) common_.insert(swarm);
        if (on_common) on_common(swarm);
    }
    // Called with a swarm each time that one of these proofs was given: something may be said of it now.
    std::function<void(InfoHash const &)> on_common;

    void send_xet(std::vector<std::uint8_t> const &message) { send(xet_id, message); }
    void send_zest(std::vector<std::uint8_t> const &message) { send(zest_id, message); }
    // Bytes that are a run of complete messages, framing and tails included (or, where nothing is sealed, a part of one
    // whose rest follows directly).
    void send_block(std::unique_ptr<SendBlock> block);

    // Frame of an extended message of `payload` bytes (BEP 10): length, message 20, extension id.
    static constexpr std::size_t frame_bytes = 6;
    void put_frame(std::uint8_t *out, int extension_id, std::size_t payload) const;
    // Room to leave behind the payload of each message, for the tag of a sealed one.
    std::size_t tail_bytes() const noexcept { return records_ ? Records::tag_bytes : 0; }
    // Every message from now on is sealed, in the order in which it is sent.
    void seal_with(std::unique_ptr<Records> records) noexcept { records_ = std::move(records); }

    // Between these the blocks are parts of one message: others wait.
    void begin_message() noexcept { inside_message_ = true; }
    void end_message();

    // Hang up, soon: libtorrent tells its plugins at once, and they must not be called from inside themselves. From now
    // on nothing is sent and nothing that arrives counts. The first reason given is the one that is reported.
    void disconnect(std::string reason);
    bool gone() const;

    // No small message waits for the other end's acknowledgement of the one before it. Once the connection is open.
    void send_without_delay() const;
    std::string const &reason() const noexcept { return reason_; }
    // Called when the connection ends: libtorrent would connect again by itself, every few seconds, and give up for
    // ever after some failures. One dial is one attempt; who wants another says so.
    void forget_address();

private:
    void send(int extension_id, std::vector<std::uint8_t> const &message);
    bool seal(std::uint8_t *messages, std::size_t size);

    lt::bt_peer_connection_handle connection_;
    lt::tcp::endpoint const remote_;
    bool const outgoing_;
    std::uint32_t const number_;
    std::uint64_t const token_;
    Post const &post_;
    std::string reason_;
    static constexpr std::size_t max_common = 4096;
    std::set<InfoHash> common_;
    bool inside_message_ = false;
    std::vector<std::uint8_t> waiting_;
    std::unique_ptr<Records> records_;
};

}  // namespace zest

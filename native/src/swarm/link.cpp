#include "link.hpp"

#include <algorithm>
#include <libtorrent/error_code.hpp>
#include <libtorrent/operations.hpp>
#include <libtorrent/torrent_peer.hpp>

#include "no_delay.hpp"
#include "zest_swarm.h"

namespace zest {
namespace {

// Small messages that wait for the end of a long one.
constexpr std::size_t max_waiting_bytes = 1 << 20;
// Bytes that a peer leaves unread. Answers stop well below (responder.cpp); only who asks and asks and never reads
// gets here.
constexpr int max_unread_bytes = 8 << 20;

// What libtorrent keeps until the bytes are written: all but the last of a block. It asks for data() and size() only
// and has room for 32 bytes. size() must be what is sent: into room left over libtorrent would put the next message
// without starting a write.
struct Holder {
    std::unique_ptr<SendBlock> block;
    Holder(std::unique_ptr<SendBlock> b) : block(std::move(b)) {}
    Holder(Holder &&) noexcept = default;
    Holder &operator=(Holder &&) noexcept = default;
    ~Holder() {
        if (block && block->sent) block->sent();
    }
    char *data() const { return block->data.get(); }
    int size() const { return static_cast<int>(block->size) - 1; }
};

}  // namespace

Link::Link(lt::peer_connection_handle const &connection, std::uint32_t number, std::uint64_t token, Post const &post)
    : connection_(connection),
      remote_(connection.remote()),
      outgoing_(connection.is_outgoing()),
      number_(number),
      token_(token),
      post_(post) {}

bool Link::gone() const {
    if (!reason_.empty()) return true;
    // libtorrent's handle must not be asked anything when its connection is no more.
    auto const native = connection_.native_handle();
    return !native || native->is_disconnecting();
}

void Link::send_without_delay() const { zest::send_without_delay(connection_); }

std::string Link::host() const { return remote_.address().to_string(); }

std::string Link::address() const {
    auto const host = remote_.address().to_string();
    auto const port = std::to_string(remote_.port());
    return remote_.address().is_v6() ? "[" + host + "]:" + port : host + ":" + port;
}

std::uint32_t Link::speaks() const noexcept {
    return (xet_id ? std::uint32_t{ZEST_SPEAKS_XET} : 0u) | (zest_id ? std::uint32_t{ZEST_SPEAKS_ZEST} : 0u);
}

void Link::put_frame(std::uint8_t *out, int extension_id, std::size_t payload) const {
    out = wire::put_u32(out, static_cast<std::uint32_t>(payload + tail_bytes() + 2));
    out[0] = 20;
    out[1] = static_cast<std::uint8_t>(extension_id);
}

void Link::send(int extension_id, std::vector<std::uint8_t> const &message) {
    if (gone() || extension_id == 0) return;
    auto const native = connection_.native_handle();
    if (!native) return;
    if ((inside_message_ && waiting_.size() > max_waiting_bytes) || native->send_buffer_size() > max_unread_bytes)
        return disconnect("does not read what it asks for");
    std::vector<std::uint8_t> framed(frame_bytes + message.size() + tail_bytes());
    put_frame(framed.data(), extension_id, message.size());
    std::copy(message.begin(), message.end(), framed.begin() + frame_bytes);
    if (!seal(framed.data(), framed.size())) return;
    if (inside_message_)
        waiting_.insert(waiting_.end(), framed.begin(), framed.end());
    else
        connection_.send_buffer(reinterpret_cast<char const *>(framed.data()), static_cast<int>(framed.size()));
}

// Seals a run of framed messages in place. False: it is not to be sent.
bool Link::seal(std::uint8_t *messages, std::size_t size) {
    if (!records_) return true;
    for (std::size_t at = 0; at < size;) {
        auto const left = size - at;
        // Who made the block may have forgotten the room for a tag; then nothing is sent in the clear, or overwritten.
        auto const whole = left < frame_bytes ? 0 : std::size_t{wire::get_u32(messages + at)} + 4;
        if (whole < frame_bytes + Records::tag_bytes || whole > left ||
            !records_->seal(messages + at + frame_bytes, whole - frame_bytes - Records::tag_bytes)) {
            disconnect("a message could not be sealed");
            return false;
        }
        at += whole;
    }
    return true;
}

void Link::end_message() {
    inside_message_ = false;
    if (!waiting_.empty() && !gone())
        connection_.send_buffer(reinterpret_cast<char const *>(waiting_.data()), static_cast<int>(waiting_.size()));
    waiting_.clear();
}

void Link::send_block(std::unique_ptr<SendBlock> block) {
    auto const native = connection_.native_handle();
    if (!native || gone() || block->size == 0 || !seal(block->at(0), block->size)) return;
    // Appending does not start a write, sending does: the last byte goes by the sending call.
    char const last = block->data[block->size - 1];
    auto const size = static_cast<int>(block->size) - 1;
    if (size > 0)
        native->append_const_send_buffer(Holder(std::move(block)), size);
    else if (block->sent)
        block->sent();
    connection_.send_buffer(&last, 1);
}

void Link::disconnect(std::string reason) {
    if (gone()) return;
    reason_ = reason.empty() ? "disconnected" : std::move(reason);
    // Not "connected to ourselves" or the like: libtorrent draws conclusions from some errors.
    post_([connection = connection_] {
        // By then libtorrent may have hung up by itself, over what came in the same packet, and forgotten all about it.
        if (auto const native = connection.native_handle(); native && !native->is_disconnecting())
            native->disconnect(boost::asio::error::connection_aborted, lt::operation_t::bittorrent,
                               lt::peer_connection_interface::normal);
    });
}

void Link::forget_address() {
    auto const native = connection_.native_handle();
    if (auto *const known = native ? native->peer_info_struct() : nullptr) known->connectable = false;
}

}  // namespace zest

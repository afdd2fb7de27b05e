// One connection as both halves of the protocol see it: what can be sent on it, and what is known of the peer.
// Used on the network thread only.
#pragma once

#include "wire.hpp"

#include <libtorrent/bt_peer_connection.hpp>
#include <libtorrent/peer_connection_handle.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace zest {

// A block of bytes on its way to the socket. `sent` runs on the network thread when the last of it was written or
// the connection ended, from inside libtorrent: it may only post.
struct SendBlock {
  explicit SendBlock(std::size_t bytes) : data(new char[bytes]), size(bytes) {}
  std::uint8_t *at(std::size_t offset) { return reinterpret_cast<std::uint8_t *>(data.get()) + offset; }
  std::unique_ptr<char[]> data; // not cleared: every byte is written before it is sent
  std::size_t size;
  std::function<void()> sent;
};

class Link {
public:
  Link(lt::peer_connection_handle const &connection, std::uint32_t number, std::uint64_t token);

  std::uint32_t number() const noexcept { return number_; }
  std::uint64_t token() const noexcept { return token_; }
  bool outgoing() const { return connection_.is_outgoing(); }
  std::string address() const;

  // The extension ids that the peer asked us to use; 0: it does not speak that.
  int xet_id = 0;
  int zest_id = 0;
  std::array<std::uint8_t, 20> node_id{};
  std::string client;
  bool ready = false;

  std::uint32_t speaks() const noexcept;

  void send_xet(std::vector<std::uint8_t> const &message) { send(xet_id, message); }
  void send_zest(std::vector<std::uint8_t> const &message) { send(zest_id, message); }
  // Bytes that are a run of complete messages, framing included (or a part of one whose rest follows directly).
  void send_block(std::unique_ptr<SendBlock> block);

  // Frame of an extended message of `payload` bytes (BEP 10): length, message 20, extension id.
  static constexpr std::size_t frame_bytes = 6;
  static void put_frame(std::uint8_t *out, int extension_id, std::size_t payload);

  // Between these the blocks are parts of one message: others wait.
  void begin_message() noexcept { inside_message_ = true; }
  void end_message();

  void disconnect();
  bool gone() const { return connection_.is_disconnecting(); }

private:
  void send(int extension_id, std::vector<std::uint8_t> const &message);

  lt::bt_peer_connection_handle connection_;
  std::uint32_t const number_;
  std::uint64_t const token_;
  bool inside_message_ = false;
  std::vector<std::uint8_t> waiting_;
};

} // namespace zest

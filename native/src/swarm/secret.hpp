// The secret of a keyed swarm, and the proof of knowing it that opens each connection. PROTOCOL.md, "Keyed swarms".
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "crypto.hpp"
#include "infohash.hpp"
#include "sealed.hpp"

namespace zest {

// What is made of the swarm key once per session.
struct SwarmSecret {
    explicit SwarmSecret(Bytes swarm_key);

    Key names;      // of swarms
    Key handshake;  // goes into the keys of every connection
};

using NodeId = std::array<std::uint8_t, 20>;
using Proof = std::array<std::uint8_t, 32>;

// One end of one connection until both have proved that they know the key. The dialler proves first: an acceptor says
// nothing to whoever has proved nothing.
class KeyedHandshake {
public:
    PublicKey const &public_key() const noexcept { return pair_.public_key(); }

    struct Connection {
        bool dialled;  // by us
        NodeId ours;
        NodeId theirs;
        PublicKey their_key;
        InfoHash swarm;
    };
    // Computes the keys of this connection. False: their public key is good for nothing.
    bool agree(Connection const &connection, Key const &secret);
    Proof const &proof() const noexcept { return ours_->proof; }
    bool proves(Bytes their_proof) const noexcept;
    std::unique_ptr<Records> sealing() const;
    std::unique_ptr<Records> opening() const;

private:
    struct Side {
        Proof proof;
        Key records;
    };
    KeyPair pair_;
    std::optional<Side> ours_, theirs_;
};

}  // namespace zest

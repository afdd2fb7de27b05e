// The secret of a keyed swarm, and the proof of knowing it that opens each connection. PROTOCOL.md, "Keyed swarms".
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "crypto.hpp"
#include "proof.hpp"
#include "sealed.hpp"

namespace zest {

// What is made of the swarm key once per session.
struct SwarmSecret {
    explicit SwarmSecret(Bytes swarm_key);

    Key names;      // of swarms
    Key handshake;  // goes into the keys of every connection
};

// One end of one connection until both have proved that they know the key. The dialler proves first: an acceptor says
// nothing to whoever has proved nothing.
class KeyedHandshake {
public:
    Hash const &public_key() const noexcept { return pair_.public_key(); }

    struct Connection {
        bool dialled;  // by us
        NodeId const &ours;
        End const &theirs;  // the nonce is their public key
        InfoHash const &swarm;
    };
    // Computes the keys of this connection. False: their public key is good for nothing.
    bool agree(Connection const &connection, Key const &secret);
    Hash const &proof() const noexcept { return ours_->proof; }
    bool proves(Hash const &their_proof) const noexcept { return same(theirs_->proof, their_proof); }
    std::unique_ptr<Records> sealing() const;
    std::unique_ptr<Records> opening() const;

private:
    struct Side {
        Hash proof;
        Key records;
    };
    KeyPair pair_;
    std::optional<Side> ours_, theirs_;
};

}  // namespace zest

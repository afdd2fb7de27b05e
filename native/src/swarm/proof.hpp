// Proofs of knowing a hash, for two peers that have not said it yet. native/PROTOCOL.md, "Blind questions".
#pragma once

#include "wire.hpp"

namespace zest {

using NodeId = std::array<std::uint8_t, 20>;
using Nonce = std::array<std::uint8_t, 32>;

// One end of a connection, as it named itself in the extension handshake. Zeros where it did not.
struct End {
    NodeId node_id{};
    Nonce nonce{};  // fresh for every connection
};

// Who asks for an object proves to know its hash before anything is said of it ...
Hash asking_proof(Hash const &object, Kind kind, End const &asker, End const &holder);
// ... and who holds it proves so before the hash itself is sent.
Hash holding_proof(Hash const &object, Kind kind, End const &asker, End const &holder);

// In a time that does not depend on where they differ.
bool same(Hash const &a, Hash const &b) noexcept;

}  // namespace zest

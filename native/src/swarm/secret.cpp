#include "secret.hpp"

#include <openssl/crypto.h>

#include <algorithm>

namespace zest {
namespace {

constexpr std::string_view protocol = "zest_hf1s";

}  // namespace

SwarmSecret::SwarmSecret(Bytes swarm_key) {
    auto const master = stretch(swarm_key);
    names = derive(master.bytes(), {}, "zest_hf swarm names");
    handshake = derive(master.bytes(), {}, "zest_hf handshake");
}

bool KeyedHandshake::agree(Connection const &connection, Key const &secret) {
    // Our own key sent back: nobody else can know what follows from it, and nobody honest has it.
    auto const &their_key = connection.theirs.nonce;
    if (their_key == public_key()) return false;
    auto const shared = pair_.agree(their_key);
    if (!shared) return false;

    // Who dialled whom, with which keys, in which swarm: proofs and records of this connection are good for no other.
    std::array<std::uint8_t, protocol.size() + 20 + 20 + 32 + 32 + 20> transcript;
    auto *out = std::copy(protocol.begin(), protocol.end(), transcript.data());
    auto const put = [&out](auto const &first, auto const &second) {
        out = std::copy(first.begin(), first.end(), out);
        out = std::copy(second.begin(), second.end(), out);
    };
    if (connection.dialled) {
        put(connection.ours, connection.theirs.node_id);
        put(public_key(), their_key);
    } else {
        put(connection.theirs.node_id, connection.ours);
        put(their_key, public_key());
    }
    std::copy(connection.swarm.begin(), connection.swarm.end(), out);
    auto const salt = sha256({transcript.data(), transcript.size()});

    std::array<std::uint8_t, 64> secrets;
    std::copy(shared->raw.begin(), shared->raw.end(), secrets.begin());
    std::copy(secret.raw.begin(), secret.raw.end(), secrets.begin() + 32);
    auto const make = [&](std::string_view purpose) {
        return derive({secrets.data(), secrets.size()}, {salt.data(), salt.size()}, purpose);
    };
    Side const dialler{make("zest_hf1s dialler proves").raw, make("zest_hf1s dialler seals")};
    Side const acceptor{make("zest_hf1s acceptor proves").raw, make("zest_hf1s acceptor seals")};
    OPENSSL_cleanse(secrets.data(), secrets.size());
    ours_ = connection.dialled ? dialler : acceptor;
    theirs_ = connection.dialled ? acceptor : dialler;
    return true;
}

std::unique_ptr<Records> KeyedHandshake::sealing() const {
    return std::make_unique<Records>(Records::Use::seal, ours_->records);
}

std::unique_ptr<Records> KeyedHandshake::opening() const {
    return std::make_unique<Records>(Records::Use::open, theirs_->records);
}

}  // namespace zest

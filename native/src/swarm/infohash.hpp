// Names of swarms: which info-hash stands for an object. One place says so for everybody: what is dialled, answered,
// announced and asked about.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "crypto.hpp"
#include "wire.hpp"

namespace zest {

class SwarmNames {
public:
    // SHA-1 over a prefix and the 32 raw bytes of the hash, as BEP XET v1 has it.
    SwarmNames() = default;
    // With the key of a keyed swarm: nobody without it can tell what a name stands for, or make one.
    explicit SwarmNames(Key const &key) : key_(key) {}

    InfoHash of(Kind kind, Hash const &hash) const;
    // Where peers that were given by hand meet: it says nothing of what either of them holds.
    InfoHash rendezvous() const;

private:
    InfoHash tagged(std::string_view tag, Hash const *hash) const;

    std::optional<Key> key_;
};

}  // namespace zest

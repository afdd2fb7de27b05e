// Names of swarms: which info-hash stands for an object. One place says so for everybody: what is dialled, answered,
// announced and asked about.
#pragma once

#include <array>
#include <cstdint>

#include "wire.hpp"

namespace zest {

using InfoHash = std::array<std::uint8_t, 20>;

class SwarmNames {
public:
    // SHA-1 over a prefix and the 32 raw bytes of the hash, as BEP XET v1 has it.
    SwarmNames() = default;

    InfoHash of(Kind kind, Hash const &hash) const;
    // Where peers that were given by hand meet: it says nothing of what either of them holds.
    InfoHash rendezvous() const;
};

}  // namespace zest

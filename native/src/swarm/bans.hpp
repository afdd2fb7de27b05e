// Who is not talked to any more. Used on the network thread only.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace zest {

class Peer;

// What is remembered of a peer.
struct Identity {
    std::array<std::uint8_t, 20> node_id;
    std::string host;
    std::string address;
    bool outgoing;
    std::uint64_t token;
};

Identity identity_of(Peer const &peer);
bool is_named(std::array<std::uint8_t, 20> const &node_id);

struct Ban {
    Identity peer;
    std::string reason;
};

class Bans {
public:
    // A host whose peers were banned under so many names is a liar that keeps renaming itself.
    static constexpr std::size_t max_names_per_host = 3;

    bool has(Identity const &who) const;
    // Whether nobody at this host is talked to.
    bool has_host(std::string const &host) const;
    // At most 4,096 are kept.
    void add(Identity who, std::string const &reason);
    std::vector<Ban> const &all() const noexcept { return bans_; }

private:
    std::vector<Ban> bans_;
    std::map<std::string, std::vector<std::array<std::uint8_t, 20>>> names_;  // banned, by host
};

}  // namespace zest

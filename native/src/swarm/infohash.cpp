#include "infohash.hpp"

#include <algorithm>
#include <libtorrent/hasher.hpp>
#include <string_view>
#include <vector>

namespace zest {

InfoHash SwarmNames::tagged(std::string_view tag, Hash const *hash) const {
    std::vector<std::uint8_t> named(tag.begin(), tag.end());
    if (hash) named.insert(named.end(), hash->begin(), hash->end());
    InfoHash out;
    if (key_) {
        auto const code = hmac_sha256(*key_, {named.data(), named.size()});
        std::copy_n(code.begin(), out.size(), out.begin());
    } else {
        auto const digest =
            lt::hasher(reinterpret_cast<char const *>(named.data()), static_cast<int>(named.size())).final();
        std::copy_n(reinterpret_cast<std::uint8_t const *>(digest.data()), out.size(), out.begin());
    }
    return out;
}

InfoHash SwarmNames::of(Kind kind, Hash const &hash) const {
    return tagged(kind == Kind::file ? "zest-hf-file-v1:" : "zest-xet-v1:", &hash);
}

InfoHash SwarmNames::rendezvous() const { return tagged("zest-hf-node-v1", nullptr); }

}  // namespace zest

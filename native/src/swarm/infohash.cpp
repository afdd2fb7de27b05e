#include "infohash.hpp"

#include <algorithm>
#include <libtorrent/hasher.hpp>
#include <string_view>

namespace zest {
namespace {

InfoHash tagged(std::string_view tag, Hash const *hash) {
    lt::hasher sha1;
    sha1.update(tag.data(), static_cast<int>(tag.size()));
    if (hash) sha1.update(reinterpret_cast<char const *>(hash->data()), static_cast<int>(hash->size()));
    auto const digest = sha1.final();
    InfoHash out;
    std::copy_n(reinterpret_cast<std::uint8_t const *>(digest.data()), out.size(), out.begin());
    return out;
}

}  // namespace

InfoHash SwarmNames::of(Kind kind, Hash const &hash) const {
    return tagged(kind == Kind::file ? "zest-hf-file-v1:" : "zest-xet-v1:", &hash);
}

InfoHash SwarmNames::rendezvous() const { return tagged("zest-hf-node-v1", nullptr); }

}  // namespace zest

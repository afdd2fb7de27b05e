// Names of swarms: SHA-1 over a prefix and the 32 raw bytes of a hash.
#pragma once

#include <cstring>
#include <libtorrent/hasher.hpp>
#include <string_view>

#include "wire.hpp"

namespace zest {

inline InfoHash tagged_info_hash(std::string_view tag, Hash const *hash) {
    lt::hasher sha1;
    sha1.update(tag.data(), static_cast<int>(tag.size()));
    if (hash) sha1.update(reinterpret_cast<char const *>(hash->data()), static_cast<int>(hash->size()));
    auto const digest = sha1.final();
    InfoHash out;
    std::memcpy(out.data(), digest.data(), out.size());
    return out;
}

inline InfoHash xorb_info_hash(Hash const &xorb) { return tagged_info_hash("zest-xet-v1:", &xorb); }
inline InfoHash file_info_hash(Hash const &file) { return tagged_info_hash("zest-hf-file-v1:", &file); }
inline InfoHash object_info_hash(Kind kind, Hash const &hash) {
    return kind == Kind::file ? file_info_hash(hash) : xorb_info_hash(hash);
}
// Where peers that were given by hand meet: it says nothing of what either of them holds.
inline InfoHash node_info_hash() { return tagged_info_hash("zest-hf-node-v1", nullptr); }

}  // namespace zest

#include "proof.hpp"

#include <blake3.h>
#include <openssl/crypto.h>

namespace zest {
namespace {

Hash proof(std::string_view tag, Hash const &object, Kind kind, End const &from, End const &to) {
    blake3_hasher hasher;
    blake3_hasher_init_keyed(&hasher, object.data());
    blake3_hasher_update(&hasher, tag.data(), tag.size());
    blake3_hasher_update(&hasher, from.node_id.data(), from.node_id.size());
    blake3_hasher_update(&hasher, to.node_id.data(), to.node_id.size());
    blake3_hasher_update(&hasher, from.nonce.data(), from.nonce.size());
    blake3_hasher_update(&hasher, to.nonce.data(), to.nonce.size());
    auto const last = static_cast<std::uint8_t>(kind);
    blake3_hasher_update(&hasher, &last, 1);
    Hash out;
    blake3_hasher_finalize(&hasher, out.data(), out.size());
    return out;
}

}  // namespace

Hash asking_proof(Hash const &object, Kind kind, End const &asker, End const &holder) {
    return proof("zest_hf1 ask", object, kind, asker, holder);
}

Hash holding_proof(Hash const &object, Kind kind, End const &asker, End const &holder) {
    return proof("zest_hf1 hold", object, kind, holder, asker);
}

bool same(Hash const &a, Hash const &b) noexcept { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace zest

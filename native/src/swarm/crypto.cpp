#include "crypto.hpp"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>

#include <stdexcept>

namespace zest {
namespace {

// Part of the protocol: both ends must come to the same key.
constexpr std::string_view scrypt_salt = "zest_hf swarm key v1";
constexpr std::uint64_t scrypt_n = 1 << 14;
constexpr std::uint64_t scrypt_r = 8;
constexpr std::uint64_t scrypt_p = 1;
constexpr std::uint64_t scrypt_max_memory = 64 << 20;

void must(bool done) {
    if (!done) throw std::runtime_error("libcrypto cannot do what a swarm key needs");
}

struct FreeContext {
    void operator()(EVP_PKEY_CTX *context) const noexcept { EVP_PKEY_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_PKEY_CTX, FreeContext>;

std::uint8_t const *raw(std::string_view text) { return reinterpret_cast<std::uint8_t const *>(text.data()); }

}  // namespace

Key::~Key() { OPENSSL_cleanse(raw.data(), raw.size()); }

Key stretch(Bytes passphrase) {
    Key out;
    must(EVP_PBE_scrypt(reinterpret_cast<char const *>(passphrase.data), passphrase.size, raw(scrypt_salt),
                        scrypt_salt.size(), scrypt_n, scrypt_r, scrypt_p, scrypt_max_memory, out.raw.data(),
                        out.raw.size()) == 1);
    return out;
}

Key derive(Bytes secret, Bytes salt, std::string_view purpose) {
    Key out;
    auto size = out.raw.size();
    Context const context(EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr));
    must(context && EVP_PKEY_derive_init(context.get()) == 1 &&
         EVP_PKEY_CTX_set_hkdf_md(context.get(), EVP_sha256()) == 1 &&
         (salt.size == 0 || EVP_PKEY_CTX_set1_hkdf_salt(context.get(), salt.data, static_cast<int>(salt.size)) == 1) &&
         EVP_PKEY_CTX_set1_hkdf_key(context.get(), secret.data, static_cast<int>(secret.size)) == 1 &&
         EVP_PKEY_CTX_add1_hkdf_info(context.get(), raw(purpose), static_cast<int>(purpose.size())) == 1 &&
         EVP_PKEY_derive(context.get(), out.raw.data(), &size) == 1 && size == out.raw.size());
    return out;
}

Hash sha256(Bytes data) {
    Hash out;
    must(EVP_Digest(data.data, data.size, out.data(), nullptr, EVP_sha256(), nullptr) == 1);
    return out;
}

Hash hmac_sha256(Key const &key, Bytes data) {
    Hash out;
    must(HMAC(EVP_sha256(), key.raw.data(), static_cast<int>(key.raw.size()), data.data, data.size, out.data(),
              nullptr) != nullptr);
    return out;
}

KeyPair::KeyPair() {
    Context const context(EVP_PKEY_CTX_new_id(EVP_PKEY_X25519, nullptr));
    EVP_PKEY *made = nullptr;
    must(context && EVP_PKEY_keygen_init(context.get()) == 1 && EVP_PKEY_keygen(context.get(), &made) == 1);
    pair_.reset(made);
    auto size = public_key_.size();
    must(EVP_PKEY_get_raw_public_key(made, public_key_.data(), &size) == 1 && size == public_key_.size());
}

std::optional<Key> KeyPair::agree(Hash const &theirs) const {
    std::unique_ptr<EVP_PKEY, Free> const other(
        EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, theirs.data(), theirs.size()));
    Context const context(EVP_PKEY_CTX_new(pair_.get(), nullptr));
    must(other && context && EVP_PKEY_derive_init(context.get()) == 1 &&
         EVP_PKEY_derive_set_peer(context.get(), other.get()) == 1);
    Key out;
    auto size = out.raw.size();
    if (EVP_PKEY_derive(context.get(), out.raw.data(), &size) != 1 || size != out.raw.size()) return std::nullopt;
    // libcrypto refuses these already; nothing promises that every version does.
    if (CRYPTO_memcmp(out.raw.data(), Key().raw.data(), size) == 0) return std::nullopt;
    return out;
}

}  // namespace zest

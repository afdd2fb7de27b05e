// What keyed swarms take from libcrypto: keys, the ways to derive them, and X25519.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "wire.hpp"

namespace zest {

// 32 secret bytes. They do not stay in memory after use.
struct Key {
    std::array<std::uint8_t, 32> raw{};

    Key() = default;
    Key(Key const &) = default;
    Key &operator=(Key const &) = default;
    ~Key();
    Bytes bytes() const noexcept { return {raw.data(), raw.size()}; }
};

// These throw std::runtime_error when libcrypto does not do its part: no memory, or a policy that forbids it.

// scrypt (RFC 7914): slow on purpose, for keys that people think up. About 40 ms and 16 MiB.
Key stretch(Bytes passphrase);
// HKDF-SHA256 (RFC 5869).
Key derive(Bytes secret, Bytes salt, std::string_view purpose);
Hash sha256(Bytes data);
Hash hmac_sha256(Key const &key, Bytes data);

// An X25519 key pair (RFC 7748) for one connection.
class KeyPair {
public:
    KeyPair();
    Hash const &public_key() const noexcept { return public_key_; }
    // What both ends compute. Nothing for a public key of small order, of which the result would be known to everybody.
    std::optional<Key> agree(Hash const &theirs) const;

private:
    struct Free {
        void operator()(EVP_PKEY *key) const noexcept { EVP_PKEY_free(key); }
    };
    std::unique_ptr<EVP_PKEY, Free> pair_;
    Hash public_key_{};
};

}  // namespace zest

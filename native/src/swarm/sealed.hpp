// Records: how messages look in a keyed swarm. One of these for each direction of a connection.
#pragma once

#include <openssl/evp.h>

#include <memory>

#include "crypto.hpp"

namespace zest {

// AES-256-GCM with the number of the record as nonce: what is changed, lost, repeated or put in another order does not
// open. Used on the network thread only; nothing is allocated for a record.
class Records {
public:
    static constexpr std::size_t tag_bytes = 16;
    // So many records, then the next key takes over: 2^16 of the longest messages are 2^32 blocks at most, far from
    // where GCM's promises wear thin, and no key lies in memory for the life of a long connection.
    static constexpr std::uint64_t records_of_a_key = 1 << 16;

    enum class Use { seal, open };
    Records(Use use, Key const &key);  // throws std::runtime_error

    // Seals `size` bytes in place; the tag goes behind them. False: libcrypto failed, and nothing may be sent.
    bool seal(std::uint8_t *message, std::size_t size);
    // Opens a record into `out`, which has room for record.size - tag_bytes. False: it is not the next record of this
    // connection; what is in `out` means nothing then.
    bool open(Bytes record, std::uint8_t *out);

private:
    bool next();  // nonce and key for the next record

    struct Free {
        void operator()(EVP_CIPHER_CTX *context) const noexcept { EVP_CIPHER_CTX_free(context); }
    };
    std::unique_ptr<EVP_CIPHER_CTX, Free> context_;
    Key key_;
    std::uint64_t count_ = 0;
};

}  // namespace zest

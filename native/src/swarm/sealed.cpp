#include "sealed.hpp"

#include <array>
#include <climits>
#include <stdexcept>

namespace zest {

Records::Records(Use use, Key const &key) : context_(EVP_CIPHER_CTX_new()), key_(key) {
    // The default nonce of GCM has 12 bytes.
    if (!context_ || EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr, key.raw.data(), nullptr,
                                       use == Use::seal ? 1 : 0) != 1)
        throw std::runtime_error("libcrypto has no AES-256-GCM");
}

bool Records::next() try {
    std::uint8_t const *key = nullptr;
    if (count_ != 0 && count_ % records_of_a_key == 0) {
        key_ = derive(key_.bytes(), {}, "zest_hf1s next");
        key = key_.raw.data();
    }
    std::array<std::uint8_t, 12> nonce{};
    for (std::size_t i = 0; i < 8; ++i) nonce[4 + i] = static_cast<std::uint8_t>(count_ >> (56 - 8 * i));
    ++count_;
    return EVP_CipherInit_ex(context_.get(), nullptr, nullptr, key, nonce.data(), -1) == 1;
} catch (std::exception const &) {  // of derive(): as any other failure
    return false;
}

bool Records::seal(std::uint8_t *message, std::size_t size) {
    int written = 0;
    return size <= INT_MAX && next() &&
           EVP_CipherUpdate(context_.get(), message, &written, message, static_cast<int>(size)) == 1 &&
           EVP_CipherFinal_ex(context_.get(), message + size, &written) == 1 &&
           EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_GCM_GET_TAG, tag_bytes, message + size) == 1;
}

bool Records::open(Bytes record, std::uint8_t *out) {
    if (record.size < tag_bytes || record.size > INT_MAX || !next()) return false;
    auto const size = record.size - tag_bytes;
    int written = 0;
    return EVP_CipherUpdate(context_.get(), out, &written, record.data, static_cast<int>(size)) == 1 &&
           EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_GCM_SET_TAG, tag_bytes,
                               const_cast<std::uint8_t *>(record.data) + size) == 1 &&
           EVP_CipherFinal_ex(context_.get(), out + size, &written) == 1;
}

}  // namespace zest

// Plays both ends of a keyed connection and what lies between them: whatever is not the next record as it was sealed
// does not open, and no other connection leads to the same proof.
//
// Input: byte 0 says what happens, the rest is what with. 0: another peer's handshake (node id, public key, info-hash);
// else a connection in which each following byte is a step: lengths to seal, then what the relay does to it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "secret.hpp"

namespace {

using namespace zest;

void require(bool condition) {
    if (!condition) std::abort();
}

class Input {
public:
    Input(std::uint8_t const *data, std::size_t size) : data_(data), size_(size) {}
    bool empty() const { return size_ == 0; }
    std::uint8_t byte() {
        if (size_ == 0) return 0;
        --size_;
        return *data_++;
    }
    template <typename Array>
    Array array() {
        Array out{};
        for (auto &each : out) each = byte();
        return out;
    }

private:
    std::uint8_t const *data_;
    std::size_t size_;
};

// One connection that stands for all: key pairs cannot come from the input.
struct Ends {
    KeyedHandshake dialler, acceptor;
    NodeId dialler_id{1}, acceptor_id{2};
    InfoHash swarm{3};
    Key secret;

    Ends() {
        require(dialler.agree({true, dialler_id, {acceptor_id, acceptor.public_key()}, swarm}, secret));
        require(acceptor.agree({false, acceptor_id, {dialler_id, dialler.public_key()}, swarm}, secret));
        require(acceptor.proves(dialler.proof()) && dialler.proves(acceptor.proof()));
        require(!acceptor.proves(acceptor.proof()) && !dialler.proves(dialler.proof()));
    }
};

void handshake(Ends const &ends, Input in) {
    auto const theirs = in.array<NodeId>();
    auto key = in.array<Hash>();
    auto const swarm = in.array<InfoHash>();
    if (in.byte() & 1) key = ends.dialler.public_key();
    KeyedHandshake node;
    if (!node.agree({false, ends.acceptor_id, {theirs, key}, swarm}, ends.secret)) return;
    // It has a key pair of its own: nothing of the other connection fits.
    require(!node.proves(ends.dialler.proof()) && !node.proves(node.proof()));
    require(node.proof() != ends.acceptor.proof());
    // Nor what the stranger can read off the wire.
    require(!node.proves(key) && !node.proves(node.public_key()));
}

void records(Ends const &ends, Input in) {
    auto const sealing = ends.dialler.sealing();
    auto const opening = ends.acceptor.opening();
    std::vector<std::uint8_t> before;
    while (!in.empty()) {
        std::size_t const size = in.byte() * 5u;
        std::vector<std::uint8_t> const message(size, in.byte());
        auto record = message;
        record.resize(size + Records::tag_bytes);
        require(sealing->seal(record.data(), size));
        auto const sealed = record;
        switch (in.byte() % 6) {
            case 0:  // a bit changes
                record[(in.byte() << 8 | in.byte()) % record.size()] ^= static_cast<std::uint8_t>(1 << in.byte() % 8);
                break;
            case 1:  // the end is missing
                record.resize(in.byte() % record.size());
                break;
            case 2:  // an earlier one comes again
                record = before;
                break;
            case 3:  // bytes from somewhere
                record.assign(in.byte(), in.byte());
                break;
            default:
                break;
        }
        before = sealed;
        // Exactly as large as it must be, so that the sanitizer sees a write behind it.
        std::vector<std::uint8_t> out(record.size() < Records::tag_bytes ? 0 : record.size() - Records::tag_bytes);
        bool const opened = opening->open({record.data(), record.size()}, out.data());
        require(opened == (record == sealed));
        if (!opened) return;  // a connection ends with that
        require(out == message);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    static Ends const ends;
    Input in(data, size);
    if (in.byte() == 0)
        handshake(ends, in);
    else
        records(ends, in);
    return 0;
}

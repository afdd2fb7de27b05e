// The messages of both extensions: bytes to values and back, without a socket. PROTOCOL.md describes them.
//
// Parsing gives a value or nothing. Every count and length is compared with its limit here, before
// anyone allocates for it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace zest {

using Hash = std::array<std::uint8_t, 32>;
using InfoHash = std::array<std::uint8_t, 20>;

struct HashOf {
    // The hashes are outputs of BLAKE3: any eight of their bytes are as good as a hash of all.
    std::size_t operator()(Hash const &h) const noexcept {
        std::size_t value;
        static_assert(sizeof value <= sizeof h);
        __builtin_memcpy(&value, h.data(), sizeof value);
        return value;
    }
};

struct Bytes {
    std::uint8_t const *data = nullptr;
    std::size_t size = 0;
};

struct ChunkSpan {
    std::uint32_t first = 0;
    std::uint32_t end = 0;
    std::uint32_t count() const noexcept { return end - first; }
};

enum class Kind : std::uint8_t { file = 1, xorb = 2 };

enum class Answer : std::uint8_t { ok = 0, not_found = 1, busy = 2 };

namespace wire {

// libtorrent closes a connection on a message over 1 MiB; ours stay well below.
constexpr std::size_t max_message_bytes = 1u << 20;
constexpr std::uint32_t max_chunk_bytes = 131072;
constexpr std::uint32_t max_manifest_entries = 16384;
constexpr std::uint32_t max_have_ranges = 16384;
constexpr std::uint32_t max_range_chunks = 8192;
constexpr std::uint32_t max_peers = 50;
constexpr std::uint32_t max_claims = 1024;
// A file of 16 TiB in chunks of the usual size; keeps every sum of chunk numbers inside 32 bits.
constexpr std::uint32_t max_object_chunks = 1u << 28;
// What zest 0.4 asks for at most: one xorb.
constexpr std::uint32_t max_xorb_chunks = 8192;

// The ids that we ask peers to use. zest 0.4 answers on id 1 whatever we say, and libtorrent keeps 3, 4, 7
// and 8 for itself.
constexpr int xet_extension_id = 1;
constexpr int zest_extension_id = 9;
constexpr char const *xet_extension_name = "ut_xet";
constexpr char const *zest_extension_name = "zest_hf1";
// The same messages sealed, in a keyed swarm; on the same id.
constexpr char const *sealed_extension_name = "zest_hf1s";

// --- ut_xet: BEP XET v1 -----------------------------------------------------------------------

struct ChunkRequest {
    std::uint32_t id;
    Hash chunk;
};
// The dialect of zest 0.4: a range of a xorb, answered with serialized xorb bytes.
struct XorbRequest {
    std::uint32_t id;
    Hash xorb;
    ChunkSpan chunks;
};
struct ChunkResponse {
    std::uint32_t id;
    Bytes data;
};
struct ChunkNotFound {
    std::uint32_t id;
};
struct ChunkError {
    std::uint32_t id;
    std::uint32_t code;
};
using XetMessage = std::variant<ChunkRequest, XorbRequest, ChunkResponse, ChunkNotFound, ChunkError>;

std::optional<XetMessage> parse_xet(Bytes message);

std::vector<std::uint8_t> chunk_request(std::uint32_t id, Hash const &chunk);
std::vector<std::uint8_t> chunk_not_found(std::uint32_t id, Hash const &hash);
std::vector<std::uint8_t> chunk_error(std::uint32_t id, std::uint32_t code, std::string_view text);
constexpr std::size_t chunk_response_header_bytes = 9;
void put_chunk_response_header(std::uint8_t *out, std::uint32_t id, std::uint32_t size);
constexpr std::size_t xorb_response_header_bytes = 13;
void put_xorb_response_header(std::uint8_t *out, std::uint32_t id, std::uint32_t first, std::uint32_t size);
// Header of one stored (uncompressed) chunk inside a serialized xorb.
constexpr std::size_t stored_chunk_header_bytes = 8;
void put_stored_chunk_header(std::uint8_t *out, std::uint32_t size);

// --- zest_hf1 -----------------------------------------------------------------------------------

// Names the object by its swarm: that says nothing to who does not know the hash. See proof.hpp.
struct HaveRequest {
    std::uint32_t id;
    Kind kind;
    InfoHash swarm;
    bool updates;  // tell the sender, until the connection ends or it cancels this, when more is held
    Hash proof;
};
struct Have {
    std::uint32_t id;
    Answer answer;
    Hash proof;            // zeros when the answer is not ok
    std::uint32_t chunks;  // of the whole object, 0 when the sender does not know
    std::vector<ChunkSpan> ranges;
};
// After a HAVE: these are held now as well (ok), or nothing is any more (not_found).
struct HaveUpdate {
    std::uint32_t id;
    Answer answer;
    std::uint32_t chunks;
    std::vector<ChunkSpan> ranges;
};
struct ManifestRequest {
    std::uint32_t id;
    Kind kind;
    Hash hash;
    std::uint32_t first;
    std::uint32_t count;
};
struct ManifestPart {
    std::uint32_t id;
    Answer answer;
    std::uint32_t chunks;  // of the whole object
    std::uint32_t first;
    std::uint32_t count;
    Bytes entries;  // count x (32 hash bytes, u32 length)
};
struct RangeRequest {
    std::uint32_t id;
    Kind kind;
    Hash hash;
    ChunkSpan chunks;
};
struct RangeData {
    std::uint32_t id;
    std::uint32_t chunk;
    Bytes data;
};
struct RangeEnd {
    std::uint32_t id;
    Answer answer;
};
struct Cancel {
    std::uint32_t id;
};
// Chunks of a xorb that the receiver is getting from elsewhere, as they come and before anything proves them. Answered
// like a range: in order, and with an early end when no more of them come.
struct FollowRequest {
    std::uint32_t id;
    Hash xorb;
    ChunkSpan chunks;
};
// Peer exchange: where others who know an object listen. IPv4 addresses are mapped (::ffff:a.b.c.d).
struct PeerAddress {
    std::array<std::uint8_t, 16> address;
    std::uint16_t port;  // not 0
};
struct Peers {
    InfoHash swarm;
    std::vector<PeerAddress> peers;
};
// A part of a file that its downloader fetches from elsewhere, or has fetched and proved.
enum class ClaimState : std::uint8_t { fetching = 1, held = 2 };
struct Claim {
    ChunkSpan chunks;  // of the file
    ClaimState state;
    std::uint16_t progress;  // in 1/65535 of its bytes
    friend bool operator==(Claim const &a, Claim const &b) noexcept {
        return a.chunks.first == b.chunks.first && a.chunks.end == b.chunks.end && a.state == b.state &&
               a.progress == b.progress;
    }
};
// What the sender does about a file: all of it each time.
struct Claims {
    InfoHash swarm;
    bool downloading;           // no: it has left or finished, and claims nothing
    std::vector<Claim> claims;  // in order, disjoint
};
using ZestMessage = std::variant<HaveRequest, Have, ManifestRequest, ManifestPart, RangeRequest, RangeData, RangeEnd,
                                 Cancel, HaveUpdate, Peers, Claims, FollowRequest>;

std::optional<ZestMessage> parse_zest(Bytes message);

std::vector<std::uint8_t> have_request(std::uint32_t id, Kind kind, InfoHash const &swarm, bool updates,
                                       Hash const &proof);
std::vector<std::uint8_t> have(std::uint32_t id, Answer answer, Hash const &proof, std::uint32_t chunks,
                               std::vector<ChunkSpan> const &ranges);
std::vector<std::uint8_t> have_update(std::uint32_t id, Answer answer, std::uint32_t chunks,
                                      std::vector<ChunkSpan> const &ranges);
std::vector<std::uint8_t> peers(InfoHash const &swarm, std::vector<PeerAddress> const &known);
std::vector<std::uint8_t> claims(InfoHash const &swarm, bool downloading, std::vector<Claim> const &claims);
std::vector<std::uint8_t> manifest_request(std::uint32_t id, Kind kind, Hash const &hash, std::uint32_t first,
                                           std::uint32_t count);
constexpr std::size_t manifest_header_bytes = 18;
constexpr std::size_t manifest_entry_bytes = 36;
void put_manifest_header(std::uint8_t *out, std::uint32_t id, Answer answer, std::uint32_t chunks, std::uint32_t first,
                         std::uint32_t count);
std::vector<std::uint8_t> range_request(std::uint32_t id, Kind kind, Hash const &hash, ChunkSpan chunks);
constexpr std::size_t range_data_header_bytes = 9;
void put_range_data_header(std::uint8_t *out, std::uint32_t id, std::uint32_t chunk);
std::vector<std::uint8_t> range_end(std::uint32_t id, Answer answer);
std::vector<std::uint8_t> cancel(std::uint32_t id);
std::vector<std::uint8_t> follow_request(std::uint32_t id, Hash const &xorb, ChunkSpan chunks);

std::uint32_t get_u32(std::uint8_t const *p) noexcept;
std::uint8_t *put_u32(std::uint8_t *p, std::uint32_t value) noexcept;

}  // namespace wire
}  // namespace zest

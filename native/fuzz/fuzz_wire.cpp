// Feeds arbitrary bytes to the parsers of both extensions. They give a value within the stated limits or nothing, and a
// value that can be written again gives the same bytes.
//
// Input: byte 0 = 0 for ut_xet, else zest_hf1; the rest is the message.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <variant>
#include <vector>

#include "wire.hpp"

namespace {

using namespace zest;
using Message = std::vector<std::uint8_t>;

void require(bool condition) {
    if (!condition) std::abort();
}

void append(Message &to, Bytes bytes) {
    if (bytes.size != 0) to.insert(to.end(), bytes.data, bytes.data + bytes.size);
}

bool in_object(ChunkSpan span) { return span.first < span.end && span.end <= wire::max_object_chunks; }

// What cannot be written again as it was: only the meaning counts of a short "not found" and of an error's text.
Message again(wire::ChunkRequest const &m) { return wire::chunk_request(m.id, m.chunk); }
Message again(wire::XorbRequest const &m) {
    require(m.chunks.first < m.chunks.end);
    // The same head as a request for a chunk, and the range.
    auto out = wire::chunk_request(m.id, m.xorb);
    out.resize(45);
    wire::put_u32(wire::put_u32(out.data() + 37, m.chunks.first), m.chunks.end);
    return out;
}
Message again(wire::ChunkResponse const &m) {
    Message out(wire::chunk_response_header_bytes);
    wire::put_chunk_response_header(out.data(), m.id, static_cast<std::uint32_t>(m.data.size));
    append(out, m.data);
    return out;
}
Message again(wire::ChunkNotFound const &) { return {}; }
Message again(wire::ChunkError const &) { return {}; }

Message again(wire::HaveRequest const &m) { return wire::have_request(m.id, m.kind, m.swarm, m.updates, m.proof); }
void check_ranges(std::uint32_t chunks, std::vector<ChunkSpan> const &ranges) {
    require(chunks <= wire::max_object_chunks && ranges.size() <= wire::max_have_ranges);
    std::uint32_t after = 0;
    for (auto const &span : ranges) {
        require(in_object(span) && span.first >= after);
        after = span.end;
    }
}
Message again(wire::Have const &m) {
    check_ranges(m.chunks, m.ranges);
    return wire::have(m.id, m.answer, m.proof, m.chunks, m.ranges);
}
Message again(wire::HaveUpdate const &m) {
    check_ranges(m.chunks, m.ranges);
    return wire::have_update(m.id, m.answer, m.chunks, m.ranges);
}
Message again(wire::Peers const &m) {
    require(!m.peers.empty() && m.peers.size() <= wire::max_peers);
    for (auto const &peer : m.peers) require(peer.port != 0);
    return wire::peers(m.swarm, m.peers);
}
Message again(wire::Claims const &m) {
    require(m.claims.size() <= wire::max_claims && (m.downloading || m.claims.empty()));
    std::uint32_t after = 0;
    for (auto const &claim : m.claims) {
        require(in_object(claim.chunks) && claim.chunks.first >= after);
        require(claim.state == wire::ClaimState::fetching || claim.state == wire::ClaimState::held);
        after = claim.chunks.end;
    }
    return wire::claims(m.swarm, m.downloading, m.claims);
}
Message again(wire::ManifestRequest const &m) {
    require(m.count != 0 && m.count <= wire::max_manifest_entries && m.first < wire::max_object_chunks);
    return wire::manifest_request(m.id, m.kind, m.hash, m.first, m.count);
}
Message again(wire::ManifestPart const &m) {
    require(m.chunks <= wire::max_object_chunks && m.count <= wire::max_manifest_entries);
    require(std::uint64_t{m.first} + m.count <= m.chunks);
    require(m.entries.size == wire::manifest_entry_bytes * m.count);
    Message out(wire::manifest_header_bytes);
    wire::put_manifest_header(out.data(), m.id, m.answer, m.chunks, m.first, m.count);
    append(out, m.entries);
    return out;
}
Message again(wire::RangeRequest const &m) {
    require(in_object(m.chunks) && m.chunks.count() <= wire::max_range_chunks);
    return wire::range_request(m.id, m.kind, m.hash, m.chunks);
}
Message again(wire::RangeData const &m) {
    require(m.data.size != 0 && m.data.size <= wire::max_chunk_bytes);
    Message out(wire::range_data_header_bytes);
    wire::put_range_data_header(out.data(), m.id, m.chunk);
    append(out, m.data);
    return out;
}
Message again(wire::RangeEnd const &m) { return wire::range_end(m.id, m.answer); }
Message again(wire::Cancel const &m) { return wire::cancel(m.id); }

template <typename M>
void check(std::optional<M> const &message, Bytes bytes) {
    if (!message) return;
    auto const out = std::visit([](auto const &m) { return again(m); }, *message);
    if (!out.empty()) require(out.size() == bytes.size && std::memcmp(out.data(), bytes.data, bytes.size) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    if (size == 0) return 0;
    // A copy of exactly this size, so that the sanitizer sees a read past the message.
    std::vector<std::uint8_t> const copy(data + 1, data + size);
    Bytes const bytes{copy.data(), copy.size()};
    if (data[0] == 0)
        check(wire::parse_xet(bytes), bytes);
    else
        check(wire::parse_zest(bytes), bytes);
    return 0;
}

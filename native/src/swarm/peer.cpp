#include "peer.hpp"

#include <openssl/rand.h>

#include <algorithm>
#include <libtorrent/bdecode.hpp>
#include <libtorrent/entry.hpp>
#include <stdexcept>

#include "session.hpp"
#include "text.hpp"

namespace zest {
namespace {

template <class... Ts>
struct Match : Ts... {
    using Ts::operator()...;
};
template <class... Ts>
Match(Ts...) -> Match<Ts...>;

using Verdict = Requester::Verdict;

int extension_id(lt::bdecode_node const &ids, char const *name) {
    auto const id = ids.dict_find_int_value(name, 0);
    return id > 0 && id < 256 ? static_cast<int>(id) : 0;
}

// libtorrent reads this dictionary after us, where it lies in its receive buffer (which is not const). It does not find
// these keys there any more.
void hide(lt::bdecode_node const &dictionary, std::initializer_list<lt::string_view> keys) {
    for (int i = 0; i < dictionary.dict_size(); ++i) {
        auto const key = dictionary.dict_at(i).first;
        if (std::find(keys.begin(), keys.end(), key) != keys.end()) const_cast<char *>(key.data())[0] = '-';
    }
}

// What a peer says of itself on which libtorrent would act:
// - its port: libtorrent would take it for one at that port that we are about to dial, and forget about the dial; or
// for
//   one that is connected, and hang up, perhaps just when the other end does so with the other connection. The Session
//   tells twins by their node id;
// - that it takes part in BEP 55, by which anybody may ask who else is connected, and have packets sent to anybody;
// - what our address is, in its opinion.
void hide_from_libtorrent(lt::bdecode_node const &handshake) {
    hide(handshake, {"p", "yourip"});
    if (auto const ids = handshake.dict_find_dict("m")) hide(ids, {"ut_holepunch"});
}

}  // namespace

Peer::Peer(Session &session, lt::peer_connection_handle const &connection, InfoHash const &in_swarm,
           std::uint32_t number, std::uint64_t token)
    : swarm(in_swarm),
      link(connection, number, token, session.responder_host().post),
      requester(link, session.events(), session.names(), session.download_turns(), session.write_queue(),
                session.responder_host().post),
      responder(std::make_shared<Responder>(link, session.responder_host())),
      session_(session) {
    link.since_ms = session.now_ms();
    link.send_without_delay();  // of who dials us; where we dial, it is to be connected first
    link.on_common = [this](InfoHash const &common) { session_.proved(*this, common); };
    link.here.node_id = session.node_id();
    if (session.secret())
        link.here.nonce = keyed_.emplace().public_key();
    else if (RAND_bytes(link.here.nonce.data(), static_cast<int>(link.here.nonce.size())) != 1)
        throw std::runtime_error("the system gives no random numbers");
}

void Peer::add_handshake(lt::entry &handshake) {
    // In place of libtorrent's own extensions.
    auto &ids = handshake["m"] = lt::entry::dictionary_type{};
    if (session_.secret()) {
        ids[wire::sealed_extension_name] = wire::zest_extension_id;
    } else {
        ids[wire::xet_extension_name] = wire::xet_extension_id;
        ids[wire::zest_extension_name] = wire::zest_extension_id;
    }
    handshake["zh"] = std::string(link.here.node_id.begin(), link.here.node_id.end());
    handshake["zn"] = std::string(link.here.nonce.begin(), link.here.nonce.end());
}

void Peer::on_connected() {
    link.send_without_delay();
    if (link.token() == 0) return;
    zest_event event{};
    event.type = ZEST_EVENT_PEER_CONNECTED;
    event.peer = link.number();
    event.token = link.token();
    session_.events().push(event);
}

bool Peer::on_handshake(lt::span<char const> reserved) {
    // BEP 10: without this bit nothing that we could talk about will come.
    if (reserved.size() < 6 || (reserved[5] & 0x10) == 0) link.disconnect("does not speak the extension protocol");
    return true;
}

bool Peer::on_extension_handshake(lt::bdecode_node const &handshake) {
    if (handshake.type() != lt::bdecode_node::dict_t) return true;
    auto const port = handshake.dict_find_int_value("p", 0);
    hide_from_libtorrent(handshake);
    if (met_ || link.gone()) return true;
    met_ = true;
    bool const keyed = session_.secret() != nullptr;
    if (!link.outgoing() && port > 0 && port <= 65535)
        listens = plain({link.remote().address(), static_cast<std::uint16_t>(port)});
    if (auto const ids = handshake.dict_find_dict("m")) {
        if (!keyed) link.xet_id = extension_id(ids, wire::xet_extension_name);
        link.zest_id = extension_id(ids, keyed ? wire::sealed_extension_name : wire::zest_extension_name);
    }
    if (auto const id = handshake.dict_find_string("zh"); id && id.string_length() == 20)
        std::copy_n(id.string_ptr(), 20, link.node_id.begin());
    if (auto const nonce = handshake.dict_find_string("zn"); nonce && nonce.string_length() == 32)
        std::copy_n(nonce.string_ptr(), 32, link.nonce.begin());
    if (auto const client = handshake.dict_find_string("v"))
        link.client = printable(std::string(client.string_value()), 40);
    if (link.speaks() == 0)
        link.disconnect(keyed ? "is not in a swarm with a key" : "speaks neither ut_xet nor zest_hf1");
    else if (keyed)
        begin_proof();
    else if (auto const why_not = session_.refusal(*this))
        link.disconnect(why_not);
    else
        be_ready();
    return true;
}

void Peer::begin_proof() try {
    // Not yet asked of the session, which may end another connection for this one: a node id is only a claim so far.
    if (link.node_id == session_.node_id()) return link.disconnect("is this node itself");
    if (link.node_id == NodeId{} ||
        !keyed_->agree({link.outgoing(), link.here.node_id, link.there(), swarm}, session_.secret()->handshake))
        return link.disconnect("broke the protocol");
    if (link.outgoing()) link.send_zest({keyed_->proof().begin(), keyed_->proof().end()});
} catch (std::exception const &e) {
    link.disconnect(e.what());
}

void Peer::on_proof(Bytes bytes) try {
    Hash proof;
    std::copy_n(bytes.data, proof.size(), proof.begin());
    if (!keyed_->proves(proof)) return link.disconnect("does not know the swarm key");
    if (auto const why_not = session_.refusal(*this)) return link.disconnect(why_not);
    if (!link.outgoing()) link.send_zest({keyed_->proof().begin(), keyed_->proof().end()});
    link.seal_with(keyed_->sealing());
    records_ = keyed_->opening();
    keyed_.reset();
    be_ready();
} catch (std::exception const &e) {
    link.disconnect(e.what());
}

void Peer::be_ready() {
    link.ready = true;
    link.since_ms = session_.now_ms();
    session_.ready(*this);
    zest_event event{};
    event.type = ZEST_EVENT_PEER_READY;
    event.peer = link.number();
    event.token = link.token();
    event.status = link.speaks();
    // Who it is and where, in one.
    std::vector<std::uint8_t> payload(link.node_id.begin(), link.node_id.end());
    auto const address = link.address();
    payload.insert(payload.end(), address.begin(), address.end());
    session_.events().push(event, std::move(payload));
}

bool Peer::on_extended(int length, int message, lt::span<char const> body) {
    if (message != wire::xet_extension_id && message != wire::zest_extension_id) return false;
    if (ended_ || link.gone()) return true;
    bool const keyed = session_.secret() != nullptr;
    // Before the proof nothing else is read, and nothing longer is stored.
    if (keyed && (message != wire::zest_extension_id || !met_ || (!link.ready && length != sizeof(Hash)))) {
        link.disconnect("broke the protocol");
        return true;
    }
    // Called on every partial read; only the last call has it all. (libtorrent bounds the length at 1 MiB.)
    if (body.size() < length) return true;
    Bytes const bytes{reinterpret_cast<std::uint8_t const *>(body.data()), static_cast<std::size_t>(body.size())};
    if (!keyed) {
        if (link.ready) end(message == wire::xet_extension_id ? handle_xet(bytes) : handle_zest(bytes));
    } else if (link.ready) {
        on_sealed(bytes);
    } else {
        on_proof(bytes);
    }
    return true;
}

void Peer::on_sealed(Bytes record) {
    // The session has room for the longest message that libtorrent lets through.
    if (record.size > wire::max_message_bytes || !records_->open(record, session_.opened()))
        return link.disconnect("sent what is not sealed with the key of this connection");
    end(handle_zest({session_.opened(), record.size - Records::tag_bytes}));
}

Verdict Peer::handle_xet(Bytes bytes) {
    auto const message = wire::parse_xet(bytes);
    // Who does not offer an extension cannot be answered on it.
    if (!message || link.xet_id == 0) return Verdict::violation;
    auto const answer = [this](auto const &m) {
        responder->on(m);
        return Verdict::fine;
    };
    return std::visit(Match{
                          [&](wire::ChunkRequest const &m) { return answer(m); },
                          [&](wire::XorbRequest const &m) { return answer(m); },
                          [&](wire::ChunkResponse const &m) { return requester.on(m, session_.now_ms()); },
                          [&](wire::ChunkNotFound const &m) { return requester.on(m); },
                          [&](wire::ChunkError const &m) { return requester.on(m); },
                      },
                      *message);
}

Verdict Peer::handle_zest(Bytes bytes) {
    auto const message = wire::parse_zest(bytes);
    if (!message || link.zest_id == 0) return Verdict::violation;
    auto const answer = [this](auto const &m) {
        responder->on(m);
        return Verdict::fine;
    };
    return std::visit(Match{
                          [&](wire::HaveRequest const &m) { return answer(m); },
                          [&](wire::ManifestRequest const &m) { return answer(m); },
                          [&](wire::RangeRequest const &m) { return answer(m); },
                          [&](wire::Cancel const &m) { return answer(m); },
                          [&](wire::FollowRequest const &m) { return answer(m); },
                          [&](wire::Have const &m) { return requester.on(m); },
                          [&](wire::ManifestPart const &m) { return requester.on(m); },
                          [&](wire::RangeData const &m) { return requester.on(m, session_.now_ms()); },
                          [&](wire::RangeEnd const &m) { return requester.on(m); },
                          [&](wire::HaveUpdate const &m) { return requester.on(m, session_.now_ms()); },
                          [&](wire::Peers const &m) {
                              session_.told(*this, m);
                              return Verdict::fine;
                          },
                          [&](wire::Claims const &m) {
                              session_.told(*this, m);
                              return Verdict::fine;
                          },
                      },
                      *message);
}

void Peer::end(Verdict verdict) {
    if (verdict == Verdict::liar)
        session_.liar(*this, requester.lie());
    else if (verdict == Verdict::violation)
        link.disconnect("broke the protocol");
}

void Peer::on_disconnect(lt::error_code const &error) {
    if (ended_) return;
    ended_ = true;
    link.forget_address();
    responder->close();
    requester.end_all(ZEST_OUTCOME_GONE);
    session_.gone(*this, link.reason().empty() ? error.message() : link.reason());
}

}  // namespace zest

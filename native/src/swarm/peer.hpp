// One connection: libtorrent's view of it (a peer plugin) on one side, our two halves of the protocol on the other.
#pragma once

#include <libtorrent/extensions.hpp>
#include <memory>
#include <optional>
#include <string>

#include "endpoint.hpp"
#include "infohash.hpp"
#include "link.hpp"
#include "requester.hpp"
#include "responder.hpp"
#include "secret.hpp"

namespace zest {

class Session;

class Peer final : public lt::peer_plugin, public std::enable_shared_from_this<Peer> {
public:
    Peer(Session &session, lt::peer_connection_handle const &connection, InfoHash const &swarm, std::uint32_t number,
         std::uint64_t token);

    InfoHash const swarm;  // in which the connection was made; it carries requests for anything

    Source source = Source::incoming;
    // Where it can be dialled: the address that we have dialled, or its host with the port that it gave.
    std::optional<Endpoint> listens;
    bool twin = false;  // closed because the same peer has another connection

    Link link;
    Requester requester;
    std::shared_ptr<Responder> responder;

    lt::string_view type() const override { return wire::zest_extension_name; }
    void add_handshake(lt::entry &handshake) override;
    void on_connected() override;
    bool on_handshake(lt::span<char const> reserved) override;
    bool on_extension_handshake(lt::bdecode_node const &handshake) override;
    bool on_extended(int length, int message, lt::span<char const> body) override;
    void on_disconnect(lt::error_code const &error) override;
    // Our swarms are never "finished with" a peer: it may be asked for something else at any time.
    bool can_disconnect(lt::error_code const &) override { return false; }

    // Of pieces nothing is said here. Handled by us, which is to say not at all: libtorrent would answer each request,
    // and keep some of the rest, for whoever likes to send them.
    bool on_choke() override { return true; }
    bool on_unchoke() override { return true; }
    bool on_interested() override { return true; }
    bool on_not_interested() override { return true; }
    bool on_have(lt::piece_index_t) override { return true; }
    bool on_dont_have(lt::piece_index_t) override { return true; }
    bool on_bitfield(lt::bitfield const &) override { return true; }
    bool on_have_all() override { return true; }
    bool on_have_none() override { return true; }
    bool on_allowed_fast(lt::piece_index_t) override { return true; }
    bool on_request(lt::peer_request const &) override { return true; }
    bool on_cancel(lt::peer_request const &) override { return true; }
    bool on_reject(lt::peer_request const &) override { return true; }
    bool on_suggest(lt::piece_index_t) override { return true; }

private:
    void begin_proof();
    void on_proof(Bytes proof);
    void be_ready();
    void on_sealed(Bytes record);
    Requester::Verdict handle_xet(Bytes message);
    Requester::Verdict handle_zest(Bytes message);
    void end(Requester::Verdict verdict);

    Session &session_;
    bool met_ = false;  // they have sent their extension handshake
    bool ended_ = false;
    // In a keyed swarm: until both have proved that they know the key, and from then on.
    std::optional<KeyedHandshake> keyed_;
    std::unique_ptr<Records> records_;
};

}  // namespace zest

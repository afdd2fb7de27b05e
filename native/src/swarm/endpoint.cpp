#include "endpoint.hpp"

namespace zest {
namespace {

Scope scope_of_v4(lt::address_v4 const &address) {
    auto const bits = address.to_uint();
    auto const in = [bits](std::uint32_t network, unsigned length) { return (bits ^ network) >> (32 - length) == 0; };
    if (in(0x7f000000, 8)) return Scope::machine;
    if (in(0x00000000, 8) || in(0xe0000000, 3)) return Scope::nowhere;  // "this" network; multicast, reserved
    // RFC 1918, link-local, and what providers use behind their NAT.
    if (in(0x0a000000, 8) || in(0xac100000, 12) || in(0xc0a80000, 16) || in(0xa9fe0000, 16) || in(0x64400000, 10))
        return Scope::site;
    return Scope::world;
}

}  // namespace

Scope scope_of(lt::address const &address) {
    if (address.is_v4()) return scope_of_v4(address.to_v4());
    auto const v6 = address.to_v6();
    if (v6.is_v4_mapped()) return scope_of_v4(boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, v6));
    if (v6.is_loopback()) return Scope::machine;
    if (v6.is_unspecified() || v6.is_multicast()) return Scope::nowhere;
    if (v6.is_link_local() || (v6.to_bytes()[0] & 0xfe) == 0xfc) return Scope::site;
    return Scope::world;
}

Endpoint plain(Endpoint const &endpoint) {
    auto const &address = endpoint.address();
    if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return endpoint;
    return {boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6()), endpoint.port()};
}

}  // namespace zest

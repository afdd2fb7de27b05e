// The dialer without sockets and clocks, driven line by line from standard input: each command answers with one line.
// tests/native/test_dialer.py speaks to it. Swarms are numbers, addresses are the last 16 bits of 10.0.x.x.
#include "dialer.hpp"

#include <iostream>
#include <set>
#include <sstream>
#include <string>

namespace {

using zest::Dialer;
using zest::Endpoint;
using zest::Source;

Endpoint endpoint(std::istream &in) {
    unsigned host, port;
    in >> host >> port;
    return {lt::address_v4(0x0a000000u + host), static_cast<std::uint16_t>(port)};
}

zest::InfoHash swarm(std::istream &in) {
    unsigned number;
    in >> number;
    zest::InfoHash out{};
    out[0] = static_cast<std::uint8_t>(number);
    return out;
}

std::int64_t number(std::istream &in) {
    std::int64_t out;
    in >> out;
    return out;
}

}  // namespace

int main() {
    Dialer dialer;
    std::set<Endpoint> taken;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream in(line);
        std::string command;
        in >> command;
        std::string answer = "ok";
        if (command == "heard") {
            auto const where = swarm(in);
            auto const who = endpoint(in);
            auto const source = static_cast<Source>(number(in));
            dialer.heard(where, who, source, number(in));
        } else if (command == "due") {
            answer = "";
            for (auto const &dial :
                 dialer.due(number(in), [&](Endpoint const &who) { return taken.count(who) != 0; })) {
                auto const host = dial.endpoint.address().to_v4().to_uint() - 0x0a000000u;
                answer += std::to_string(dial.swarm[0]) + ":" + std::to_string(host) + ":" +
                          std::to_string(dial.endpoint.port()) + ":" + std::to_string(static_cast<int>(dial.source)) +
                          " ";
            }
        } else if (command == "when") {
            answer = std::to_string(dialer.due_ms());
        } else if (command == "taken") {
            taken.insert(endpoint(in));
        } else if (command == "vacant") {
            taken.erase(endpoint(in));
            dialer.vacant();
        } else if (command == "ready") {
            auto const who = endpoint(in);
            dialer.ready(who, number(in));
        } else if (command == "ended") {
            auto const who = endpoint(in);
            auto const end = static_cast<Dialer::End>(number(in));
            dialer.ended(who, end, number(in));
        } else if (command == "forget") {
            dialer.forget(swarm(in));
        } else if (command == "flying") {
            answer = std::to_string(dialer.flying());
        } else {
            answer = "?" + line;
        }
        std::cout << answer << std::endl;
    }
}

// Gives the connections their turns as the BandwidthScheduler says, and wakes up when the cap permits more. One for
// what is sent: a turn is a batch that is read. One for what comes: a turn is a part of a piece that is asked for. Used
// on the network thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "bandwidth_scheduler.hpp"

namespace zest {

class BandwidthTurns {
public:
    explicit BandwidthTurns(boost::asio::io_context &network) : timer_(network) {}

    // Begins with something and returns how many bytes it is; 0: nothing after all. Called from inside ask() when it
    // can be at once.
    using TakeTurn = std::function<std::size_t()>;
    void ask(std::uint32_t connection, std::string const &host, bool gives, TakeTurn take);
    // What a turn was taken for is not under way any more.
    void finished();
    void charge(std::uint32_t connection, std::size_t bytes);
    void forget(std::uint32_t connection);

    void set_cap(std::uint64_t bytes_s);
    std::uint64_t cap_bytes_s() const noexcept { return scheduler_.cap_bytes_s(); }
    std::size_t batch_bytes() const noexcept { return scheduler_.batch_bytes(); }
    // Before the network thread ends: nothing is given any more, and no timer keeps it.
    void stop();

private:
    void give();

    BandwidthScheduler scheduler_;
    std::map<std::uint32_t, TakeTurn> waiting_;
    boost::asio::steady_timer timer_;
    bool giving_ = false;
    bool stopped_ = false;
};

}  // namespace zest

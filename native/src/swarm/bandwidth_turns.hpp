// Gives the responders their turns to read, as the BandwidthScheduler says, and wakes up when the cap permits more.
// Used on the network thread only.
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

    // Begins to read and returns how many bytes; 0: nothing after all. Called from inside ask() when it can be at once.
    using TakeTurn = std::function<std::size_t()>;
    void ask(std::uint32_t connection, std::string const &host, bool gives, TakeTurn take);
    // What a turn was taken for has been read, or could not be.
    void finished();
    void charge(std::uint32_t connection, std::size_t bytes);
    void forget(std::uint32_t connection);

    void set_cap(std::uint64_t bytes_s);
    std::size_t batch_bytes() const noexcept { return scheduler_.batch_bytes(); }
    // Before the network thread ends.
    void stop();

private:
    void give();

    BandwidthScheduler scheduler_;
    std::map<std::uint32_t, TakeTurn> waiting_;
    boost::asio::steady_timer timer_;
    bool giving_ = false;
};

}  // namespace zest

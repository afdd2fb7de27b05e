// The classes of the swarm that know neither sockets nor clocks, driven line by line from standard input: what each
// command answers is one line. tests/pure_classes.py speaks to it.
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "bandwidth_scheduler.hpp"
#include "chunk_set.hpp"
#include "unsent_limit.hpp"

namespace {

using zest::ChunkSpan;

// start-end,start-end
std::vector<ChunkSpan> spans(std::string const &text) {
    std::vector<ChunkSpan> out;
    std::istringstream in(text);
    ChunkSpan span;
    char sign;
    while (in >> span.first >> sign >> span.end) {
        out.push_back(span);
        in >> sign;
    }
    return out;
}

std::string text(std::vector<ChunkSpan> const &spans) {
    std::string out;
    for (auto const span : spans)
        out += (out.empty() ? "" : ",") + std::to_string(span.first) + "-" + std::to_string(span.end);
    return out.empty() ? "-" : out;
}

template <typename T>
std::string text(std::optional<T> const &value) {
    return value ? std::to_string(*value) : "-";
}

struct Driver {
    zest::BandwidthScheduler scheduler;
    zest::ChunkSet set;
    zest::UnsentLimit unsent;

    std::string run(std::string const &command, std::istringstream &in) {
        std::uint32_t connection = 0;
        std::uint64_t bytes = 0;
        std::int64_t now = 0;
        if (command == "reset") {
            *this = Driver{};
        } else if (command == "cap") {
            in >> bytes >> now;
            scheduler.set_cap(bytes, now);
        } else if (command == "batch") {
            return std::to_string(scheduler.batch_bytes());
        } else if (command == "wait") {
            std::string host;
            double weight = 1;
            in >> connection >> host >> weight;
            scheduler.wait(connection, host, weight);
        } else if (command == "next") {
            in >> now;
            return text(scheduler.next(now));
        } else if (command == "used") {
            in >> connection >> bytes;
            scheduler.used(connection, bytes);
        } else if (command == "finished") {
            scheduler.finished();
        } else if (command == "charge") {
            in >> connection >> bytes >> now;
            scheduler.charge(connection, bytes, now);
        } else if (command == "forget") {
            in >> connection;
            scheduler.forget(connection);
        } else if (command == "wake") {
            in >> now;
            return text(scheduler.wake_at(now));
        } else if (command == "begin") {
            in >> now;
            unsent.begin(now);
        } else if (command == "left") {
            in >> bytes >> now;
            unsent.left(bytes, now);
            return std::to_string(unsent.bytes());
        } else if (command == "add") {
            ChunkSpan span;
            in >> span.first >> span.end;
            return std::to_string(set.add(span));
        } else if (command == "runs") {
            return text(set.runs());
        } else if (command == "count") {
            return std::to_string(set.count()) + " " + std::to_string(set.run_count());
        } else if (command == "first") {
            ChunkSpan within;
            in >> within.first >> within.end;
            auto const run = set.first_run(within);
            return std::to_string(run.first) + " " + std::to_string(run.end);
        } else if (command == "merged") {
            std::string list;
            std::size_t limit = 0;
            in >> list >> limit;
            return text(zest::merged(spans(list), limit));
        } else if (command == "added") {
            std::string before, now_held;
            in >> before >> now_held;
            bool lost = false;
            auto const more = zest::added(spans(before), spans(now_held), lost);
            return lost ? "lost" : text(more);
        } else {
            return "? " + command;
        }
        return "ok";
    }
};

}  // namespace

int main() {
    Driver driver;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream in(line);
        std::string command;
        in >> command;
        std::cout << driver.run(command, in) << std::endl;
    }
}

// Content-defined chunk boundaries: GearHash with the parameters of the Xet protocol.
#pragma once

#include <cstddef>
#include <cstdint>

#include "zest_codec.h"

namespace zest {

// Finds the end of one chunk after another in a stream. The bytes themselves are not kept.
class Boundaries {
public:
    explicit Boundaries(int rule) : rule_(rule) {}

    // Looks at the next bytes of the stream. True when the current chunk ends within them: `taken` bytes belong to it
    // and the next call starts a new chunk with the rest. False when it does not: `taken` is `size`.
    bool next(const uint8_t *data, size_t size, size_t &taken);

private:
    bool search_head(const uint8_t *data, size_t size, size_t &at);

    int rule_;
    size_t length_ = 0;  // of the current, unfinished chunk
    uint64_t hash_ = 0;
};

// Throws Failure for a rule that does not exist.
void check_rule(int rule);

}  // namespace zest

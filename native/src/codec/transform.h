// Reversible shuffles that make arrays of numbers compress better. `in` and `out` do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zest {

// Byte grouping by 4: all bytes at index % 4 == 0, then 1, 2 and 3; group k has (size - k + 3) / 4 bytes.
void bg4_split(const uint8_t *in, size_t size, uint8_t *out);
void bg4_join(const uint8_t *in, size_t size, uint8_t *out);

// Bit planes: bit 0 of every byte in order, then bit 1 of every byte, ... bit 7. The 8 * size bits follow each other
// without padding, and a byte is filled from its lowest bit, so that plane p begins at bit p * size.
void bitslice_split(const uint8_t *in, size_t size, uint8_t *out);
void bitslice_join(const uint8_t *in, size_t size, uint8_t *out);

}  // namespace zest

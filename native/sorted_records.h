// Records of one width that lie one after the other, sorted by the 16 bytes that they begin with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace novacron {

constexpr size_t kPrefixBytes = 16;

// Of every prefix (16 bytes each), in turn, the records that begin with it: number of the prefix, number of the record.
std::vector<std::pair<uint32_t, uint32_t>> find_records(const uint8_t* records, size_t count, size_t width,
                                                        const uint8_t* prefixes, size_t wanted);

}  // namespace novacron

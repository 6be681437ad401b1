// Where chunks of a stream begin and end: in blocks, blocks of zeros left out. docs/repository.md specifies both ways.
#pragma once

#include <utility>
#include <vector>

#include "blake3_pages.h"

namespace novacron {

constexpr size_t kLongestChunk = 64;  // blocks
constexpr size_t kShortestChunk = 4;
constexpr uint32_t kLastBelow = 330382099;  // one block in thirteen is a last one: chunks of sixteen, on average

using Cuts = std::vector<std::pair<uint32_t, uint32_t>>;  // first block, number of blocks

// Every 64 blocks; what is all zeros is left out. The last block may be short.
Cuts cut_fixed(const uint8_t* data, size_t size);

// After blocks that the key chooses.
Cuts cut_by_content(const uint8_t* data, size_t size, const Key& key);

}  // namespace novacron

// The records of a RAM section in QEMU's migration stream (migration/ram.c of QEMU 7.2); integers are big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace novacron {

enum class Stop { kNeedMore, kEnd, kMemSize, kUnknown };

struct Block {
    std::string name;
    uint64_t bytes;
};

struct Scan {
    Stop stop = Stop::kNeedMore;
    size_t position = 0;  // of the first byte that was not taken
    int current = -1;     // block of the last record: the next may lean on it
    std::vector<uint8_t> blocks;
    std::vector<uint32_t> pages, positions;  // a position is that of the page's data in the buffer, or kNoData
    const char* detail = "";
};

Scan scan_records(const uint8_t* data, size_t size, size_t position, int current, const std::vector<Block>& blocks);

}  // namespace novacron

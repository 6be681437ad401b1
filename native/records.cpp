#include "records.h"

#include <cstring>

#include "pages.h"

namespace novacron {
namespace {

enum Flag : uint64_t {
    kZeroFlag = 0x02,
    kMemSizeFlag = 0x04,
    kPageFlag = 0x08,
    kEosFlag = 0x10,
    kContinueFlag = 0x20,
    kMultifdFlushFlag = 0x200,
};
constexpr uint64_t kFlagBits = 0xFFF;

uint64_t big_endian(const uint8_t* from) {
    uint64_t value;
    std::memcpy(&value, from, sizeof value);
    return __builtin_bswap64(value);
}

int find(const std::vector<Block>& blocks, const uint8_t* name, size_t length) {
    for (size_t i = 0; i < blocks.size(); ++i)
        if (blocks[i].name.size() == length && !std::memcmp(blocks[i].name.data(), name, length))
            return static_cast<int>(i);
    return -1;
}

}  // namespace

Scan scan_records(const uint8_t* data, size_t size, size_t position, int current, const std::vector<Block>& blocks) {
    Scan out;
    out.position = position;
    out.current = current;
    const auto unknown = [&out](const char* detail) {
        out.stop = Stop::kUnknown;
        out.detail = detail;
        return out;
    };
    while (true) {
        size_t at = out.position;
        if (size - at < 8) return out;
        const uint64_t head = big_endian(data + at);
        const uint64_t flags = head & kFlagBits, offset = head & ~kFlagBits;
        at += 8;
        if (flags == kEosFlag) {
            out.stop = Stop::kEnd;
            out.position = at;
            return out;
        }
        if (flags == kMemSizeFlag) {
            out.stop = Stop::kMemSize;
            return out;
        }
        if (flags == kMultifdFlushFlag) {
            out.position = at;
            continue;
        }
        const uint64_t kind = flags & ~static_cast<uint64_t>(kContinueFlag);
        if (kind != kZeroFlag && kind != kPageFlag) return unknown("unknown flags");
        int block = out.current;
        if (!(flags & kContinueFlag)) {
            if (size - at < 1) return out;
            const size_t length = data[at];
            if (size - at - 1 < length) return out;
            block = find(blocks, data + at + 1, length);
            at += 1 + length;
        }
        if (block < 0) return unknown("unknown block");
        if (offset >= blocks[static_cast<size_t>(block)].bytes) return unknown("page outside its block");
        const size_t payload = kind == kZeroFlag ? 1 : kPageBytes;
        if (size - at < payload) return out;
        if (kind == kZeroFlag && data[at]) return unknown("filled with a byte that is not zero");
        out.blocks.push_back(static_cast<uint8_t>(block));
        out.pages.push_back(static_cast<uint32_t>(offset / kPageBytes));
        out.positions.push_back(kind == kZeroFlag ? kNoData : static_cast<uint32_t>(at));
        out.current = block;
        out.position = at + payload;
    }
}

}  // namespace novacron

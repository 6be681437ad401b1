// Prefixes are digests, so a record lies about where its prefix says; the search widens from there.
#include "sorted_records.h"

#include <algorithm>
#include <cstring>

namespace novacron {
namespace {

size_t guess(const uint8_t* prefix, size_t count) {
    uint64_t high = 0;
    for (int i = 0; i < 8; ++i) high = high << 8 | prefix[i];
    return static_cast<size_t>(static_cast<unsigned __int128>(high) * count >> 64);
}

}  // namespace

std::vector<std::pair<uint32_t, uint32_t>> find_records(const uint8_t* records, size_t count, size_t width,
                                                        const uint8_t* prefixes, size_t wanted) {
    std::vector<std::pair<uint32_t, uint32_t>> out;
    if (!count) return out;
    for (size_t number = 0; number < wanted; ++number) {
        const uint8_t* prefix = prefixes + number * kPrefixBytes;
        const auto before = [&](size_t record) {
            return std::memcmp(records + record * width, prefix, kPrefixBytes) < 0;
        };
        const size_t middle = guess(prefix, count);
        size_t low = middle, high = middle, step = 32;  // the first record that is not before lies from low to high
        if (before(middle)) {
            low = high = middle + 1;
            for (; high < count && before(high); step *= 2) {
                low = high + 1;
                high = std::min(count, high + step);
            }
        } else {
            for (; low && !before(low - 1); step *= 2) {
                high = low - 1;
                low -= std::min(low, step);
            }
        }
        while (low < high) {
            const size_t half = low + (high - low) / 2;
            if (before(half)) low = half + 1;
            else high = half;
        }
        for (; low < count && !std::memcmp(records + low * width, prefix, kPrefixBytes); ++low)
            out.emplace_back(static_cast<uint32_t>(number), static_cast<uint32_t>(low));
    }
    return out;
}

}  // namespace novacron

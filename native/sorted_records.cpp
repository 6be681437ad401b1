// Prefixes are digests, so a record lies about where its prefix says; the search widens from there.
#include "sorted_records.h"

#include <algorithm>
#include <cstring>

namespace novacron {
namespace {

uint64_t head(const uint8_t* prefix) {
    uint64_t value;
    std::memcpy(&value, prefix, sizeof value);
    return __builtin_bswap64(value);
}

// Where a prefix lies, by what it says and by what lies there: each look costs a miss of the cache, so few are made.
size_t guess(const uint8_t* records, size_t count, size_t width, uint64_t wanted) {
    const auto share = [&](uint64_t part) {
        return static_cast<size_t>(static_cast<unsigned __int128>(part) * count >> 64);
    };
    size_t at = share(wanted);
    for (int look = 0; look < 2; ++look) {
        const uint64_t found = head(records + at * width);
        if (found < wanted) at = std::min(count - 1, at + share(wanted - found));
        else at -= std::min(at, share(found - wanted));
    }
    return at;
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
        const size_t middle = guess(records, count, width, head(prefix));
        size_t low = middle, high = middle, step = 2;  // the first record that is not before lies from low to high
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

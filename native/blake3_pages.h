// Keyed BLAKE3 of 4 KiB pages, cut to 128 bits. Specification: "BLAKE3: one function, fast everywhere" (2020).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace novacron {

constexpr size_t kPageBytes = 4096;

struct Digest {
    uint64_t low = 0;
    uint64_t high = 0;
    bool operator==(const Digest&) const = default;
    bool none() const { return low == 0 && high == 0; }  // what stands for a page of zeros
};
static_assert(sizeof(Digest) == 16);

using Key = std::array<uint32_t, 8>;

// Digests of `count` pages that lie wherever `pages` says.
void digest_pages(const Key& key, const uint8_t* const* pages, size_t count, Digest* out);

}  // namespace novacron

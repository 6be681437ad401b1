// A page is four chunks of 1 KiB and a tree of three parents. Eight pages are hashed side by side, so that eight lanes
// are full at every level of the tree: chunks in four groups, then sixteen parents, then eight roots.
#include "blake3_pages.h"

#include <cstring>

namespace novacron {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kChunks = 4;
constexpr size_t kChunkBytes = 1024;
constexpr size_t kBlockBytes = 64;

typedef uint32_t Lanes __attribute__((vector_size(4 * kLanes)));

enum Flags : uint32_t { kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8, kKeyed = 16 };

constexpr uint32_t kInitial[4] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A};

// Message word of each round's sixteen places: the permutation applied 0 to 6 times.
constexpr uint8_t kSchedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

#define NOVACRON_INLINE inline __attribute__((always_inline))

template <int N>
NOVACRON_INLINE void rotate_right(Lanes& value) {
    value = (value >> N) | (value << (32 - N));
}

NOVACRON_INLINE void mix(Lanes& a, Lanes& b, Lanes& c, Lanes& d, const Lanes& x, const Lanes& y) {
    a += b + x;
    d ^= a;
    rotate_right<16>(d);
    c += d;
    b ^= c;
    rotate_right<12>(b);
    a += b + y;
    d ^= a;
    rotate_right<8>(d);
    c += d;
    b ^= c;
    rotate_right<7>(b);
}

NOVACRON_INLINE void compress(Lanes value[8], const Lanes message[16], uint32_t counter, uint32_t flags) {
    Lanes s[16];
    for (int i = 0; i < 8; ++i) s[i] = value[i];
    for (int i = 0; i < 4; ++i) s[8 + i] = Lanes{} + kInitial[i];
    s[12] = Lanes{} + counter;
    s[13] = Lanes{};
    s[14] = Lanes{} + static_cast<uint32_t>(kBlockBytes);
    s[15] = Lanes{} + flags;
    for (const auto& w : kSchedule) {
        mix(s[0], s[4], s[8], s[12], message[w[0]], message[w[1]]);
        mix(s[1], s[5], s[9], s[13], message[w[2]], message[w[3]]);
        mix(s[2], s[6], s[10], s[14], message[w[4]], message[w[5]]);
        mix(s[3], s[7], s[11], s[15], message[w[6]], message[w[7]]);
        mix(s[0], s[5], s[10], s[15], message[w[8]], message[w[9]]);
        mix(s[1], s[6], s[11], s[12], message[w[10]], message[w[11]]);
        mix(s[2], s[7], s[8], s[13], message[w[12]], message[w[13]]);
        mix(s[3], s[4], s[9], s[14], message[w[14]], message[w[15]]);
    }
    for (int i = 0; i < 8; ++i) value[i] = s[i] ^ s[8 + i];
}

NOVACRON_INLINE uint32_t word(const uint8_t* from) {
    uint32_t value;
    std::memcpy(&value, from, sizeof value);  // little-endian, like the hash
    return value;
}

NOVACRON_INLINE void start(Lanes value[8], const Key& key) {
    for (int i = 0; i < 8; ++i) value[i] = Lanes{} + key[i];
}

// Chunk `index` of eight pages.
NOVACRON_INLINE void hash_chunks(const Key& key, const uint8_t* const* pages, size_t index, Lanes value[8]) {
    start(value, key);
    for (size_t block = 0; block < kChunkBytes / kBlockBytes; ++block) {
        const size_t at = index * kChunkBytes + block * kBlockBytes;
        Lanes message[16];
        for (size_t w = 0; w < 16; ++w)
            for (size_t lane = 0; lane < kLanes; ++lane) message[w][lane] = word(pages[lane] + at + 4 * w);
        uint32_t flags = kKeyed;
        if (block == 0) flags |= kChunkStart;
        if (block == kChunkBytes / kBlockBytes - 1) flags |= kChunkEnd;
        compress(value, message, static_cast<uint32_t>(index), flags);
    }
}

NOVACRON_INLINE void join(const Key& key, const Lanes left[8], const Lanes right[8], uint32_t flags, Lanes value[8]) {
    Lanes message[16];
    for (int i = 0; i < 8; ++i) {
        message[i] = left[i];
        message[8 + i] = right[i];
    }
    start(value, key);
    compress(value, message, 0, kKeyed | kParent | flags);
}

__attribute__((target_clones("avx2", "default"))) void eight(const Key& key, const uint8_t* const* pages, Digest* out) {
    Lanes chunks[kChunks][8], parents[2][8], root[8];
    for (size_t i = 0; i < kChunks; ++i) hash_chunks(key, pages, i, chunks[i]);
    join(key, chunks[0], chunks[1], 0, parents[0]);
    join(key, chunks[2], chunks[3], 0, parents[1]);
    join(key, parents[0], parents[1], kRoot, root);
    for (size_t lane = 0; lane < kLanes; ++lane) {
        out[lane].low = root[0][lane] | static_cast<uint64_t>(root[1][lane]) << 32;
        out[lane].high = root[2][lane] | static_cast<uint64_t>(root[3][lane]) << 32;
    }
}

}  // namespace

void digest_pages(const Key& key, const uint8_t* const* pages, size_t count, Digest* out) {
    size_t done = 0;
    for (; done + kLanes <= count; done += kLanes) eight(key, pages + done, out + done);
    if (done == count) return;
    const uint8_t* padded[kLanes];
    Digest digests[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) padded[lane] = pages[done + lane < count ? done + lane : done];
    eight(key, padded, digests);
    std::memcpy(out + done, digests, (count - done) * sizeof(Digest));
}

}  // namespace novacron

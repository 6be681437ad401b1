#include "cuts.h"

#include <algorithm>
#include <cstring>

namespace novacron {
namespace {

bool all_zeros(const uint8_t* data, size_t size) { return !size || (!*data && !std::memcmp(data, data + 1, size - 1)); }

}  // namespace

Cuts cut_fixed(const uint8_t* data, size_t size) {
    constexpr size_t kStep = kLongestChunk * kPageBytes;
    Cuts out;
    for (size_t at = 0; at < size; at += kStep) {
        const size_t length = std::min(kStep, size - at);
        if (!all_zeros(data + at, length)) out.emplace_back(at / kPageBytes, (length + kPageBytes - 1) / kPageBytes);
    }
    return out;
}

Cuts cut_by_content(const uint8_t* data, size_t size, const Key& key) {
    std::vector<uint32_t> filled;
    std::vector<const uint8_t*> whole;
    for (size_t at = 0; at < size; at += kPageBytes) {
        const size_t length = std::min(kPageBytes, size - at);
        if (all_zeros(data + at, length)) continue;
        filled.push_back(static_cast<uint32_t>(at / kPageBytes));
        if (length == kPageBytes) whole.push_back(data + at);
    }
    std::vector<Digest> digests(filled.size());  // that of a short block counts for nothing: the stream ends there
    digest_pages(key, whole.data(), whole.size(), digests.data());

    Cuts out;
    bool open = false;
    for (size_t i = 0; i < filled.size(); ++i) {
        if (open && out.back().first + out.back().second == filled[i])
            ++out.back().second;
        else
            out.emplace_back(filled[i], 1);
        const uint32_t blocks = out.back().second;
        const bool last = static_cast<uint32_t>(digests[i].low) < kLastBelow;
        open = blocks < kLongestChunk && !(last && blocks >= kShortestChunk);
    }
    return out;
}

}  // namespace novacron

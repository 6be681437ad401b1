// What the blocks of a disk at the other side are, by digest.
#pragma once

#include "ops.h"

namespace novacron {

class BlockIndex {
  public:
    static constexpr Digest kUnknown{UINT64_MAX, UINT64_MAX};

    // `fresh`: the disk reads as zeros everywhere; otherwise nothing is known of it.
    BlockIndex(uint64_t blocks, bool fresh) : digests_(blocks, fresh ? Digest{} : kUnknown), table_(blocks) {}

    uint64_t blocks() const { return digests_.size(); }
    const Digest& of(uint32_t block) const { return digests_[block]; }

    void enter(uint32_t block, const Digest& digest) {
        digests_[block] = digest;
        if (!digest.none()) table_.enter(digest, block);
    }

    // What the other side says that it holds, block by block; digests of zeros are none.
    void adopt(const Digest* digests, size_t count) {
        for (size_t i = 0; i < count && i < digests_.size(); ++i) enter(static_cast<uint32_t>(i), digests[i]);
    }

    // The same, where nothing is known yet; `kUnknown` stays unknown.
    void learn(const Digest* digests, size_t count) {
        for (size_t i = 0; i < count && i < digests_.size(); ++i)
            if (digests_[i] == kUnknown && !(digests[i] == kUnknown)) enter(static_cast<uint32_t>(i), digests[i]);
    }

    const std::vector<Digest>& digests() const { return digests_; }

    // Runs (first, count) of blocks among `count` from `first` on that may hold something.
    std::vector<std::pair<uint64_t, uint64_t>> held(uint64_t first, uint64_t count) const {
        std::vector<std::pair<uint64_t, uint64_t>> runs;
        for (uint64_t block = first; block < first + count; ++block) {
            if (digests_[block].none()) continue;
            if (!runs.empty() && runs.back().first + runs.back().second == block) {
                ++runs.back().second;
            } else {
                runs.emplace_back(block, 1);
            }
        }
        return runs;
    }

    // A block of that content; kNone when none is known.
    uint32_t find(const Digest& digest) const {
        const uint32_t* places = table_.bucket(digest);
        for (size_t way = 0; way < DigestTable::kWays; ++way)
            if (places[way] != DigestTable::kNone && digests_[places[way]] == digest) return places[way];
        return DigestTable::kNone;
    }

  private:
    std::vector<Digest> digests_;
    DigestTable table_;
};

}  // namespace novacron

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

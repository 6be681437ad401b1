// Disk blocks: like pages, but without a picture of the other side's bytes: what it holds is known by digest only.
#pragma once

#include "pages.h"

namespace novacron {

class BlockEncoder {
  public:
    // `fresh`: the other side's disk reads as zeros everywhere; otherwise nothing is known of it.
    BlockEncoder(uint64_t blocks, const Key& key, bool fresh);

    // Blocks `numbers`, each once, with their data one after the other.
    void encode(const std::vector<uint32_t>& numbers, const uint8_t* data, Encoded& out);

    const BlockIndex& index() const { return index_; }
    void adopt(const Digest* digests, size_t count) { index_.adopt(digests, count); }
    void learn(const Digest* digests, size_t count) { index_.learn(digests, count); }

  private:
    Key key_;
    BlockIndex index_;
};

}  // namespace novacron

// RAM pages against a picture of what the other side holds.
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "block_index.h"
#include "ops.h"

namespace novacron {

enum Class : size_t { kUnchangedClass, kZeroClass, kCopyClass, kDeltaClass, kLiteralClass, kBlockClass, kClasses };

// Whole pages go to `literals`, which the caller has made large enough for every page that has data: they are most of
// what there is, and so are copied once.
struct Encoded {
    explicit Encoded(uint8_t* literals) : literals(literals) {}

    void add_literal(const uint8_t* page) {
        std::memcpy(literals + literal_bytes, page, kPageBytes);
        literal_bytes += kPageBytes;
    }

    uint8_t* literals;
    size_t literal_bytes = 0;
    std::string ops, deltas;
    std::array<uint64_t, kClasses> pages{};
};

constexpr uint32_t kNoData = UINT32_MAX;  // as a page's position: a page of zeros

class PageEncoder {
  public:
    // `fresh`: the shadow is all zeros, and is not looked through. No page of it is touched before it is written to.
    PageEncoder(uint8_t* shadow, uint64_t pages, const Key& key, bool fresh);

    // The other side says what it holds, page by page, where the shadow does not know it: digests stand for bytes there,
    // so such a page is known or copied, and never the base of a delta.
    void adopt(const Digest* digests, size_t count);

    // Pages that a disk of the other side holds as a block may be told by that block's number.
    void look_into(std::vector<const BlockIndex*> disks) { disks_ = std::move(disks); }

    // `count` pages; data of page i at data + positions[i].
    void encode(const uint32_t* numbers, const uint32_t* positions, size_t count, const uint8_t* data, Encoded& out);

    const std::vector<Digest>& digests() const { return digests_; }
    uint64_t pages() const { return digests_.size(); }

  private:
    void emit(uint32_t page, const uint8_t* data, const Digest& digest, OpWriter& ops, Encoded& out);
    bool find_block(const Digest& digest, size_t& disk, uint32_t& block) const;
    bool find(uint32_t page, const uint8_t* data, const Digest& digest, uint32_t& source) const;

    uint8_t* shadow_;
    Key key_;
    std::vector<Digest> digests_;
    DigestTable table_;
    std::vector<const BlockIndex*> disks_;
    std::vector<bool> told_;  // pages known by the other side's word alone: the shadow has not their bytes
    std::vector<uint32_t> touched_;  // by batch number: pages of this batch that came before
    uint32_t batch_ = 0;
};

// Writes the operations of a batch into `ram`; throws MalformedError without having read or written outside of it.
// `blocks` holds what BLOCK operations refer to, in their order.
void apply_pages(uint8_t* ram, OpReader ops, Reader literals, Reader deltas, Reader blocks);

}  // namespace novacron

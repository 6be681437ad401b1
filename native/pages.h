// RAM pages against a picture of what the other side holds.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "ops.h"

namespace novacron {

enum Class : size_t { kUnchangedClass, kZeroClass, kCopyClass, kDeltaClass, kLiteralClass, kClasses };

struct Encoded {
    std::string ops, literals, deltas;
    std::array<uint64_t, kClasses> pages{};
};

constexpr uint32_t kNoData = UINT32_MAX;  // as a page's position: a page of zeros

class PageEncoder {
  public:
    PageEncoder(uint8_t* shadow, uint64_t pages, const Key& key);

    // `count` pages; data of page i at data + positions[i].
    Encoded encode(const uint32_t* numbers, const uint32_t* positions, size_t count, const uint8_t* data);

    const std::vector<Digest>& digests() const { return digests_; }
    uint64_t pages() const { return digests_.size(); }

  private:
    void emit(uint32_t page, const uint8_t* data, const Digest& digest, OpWriter& ops, Encoded& out);
    bool find(uint32_t page, const uint8_t* data, const Digest& digest, uint32_t& source) const;

    uint8_t* shadow_;
    Key key_;
    std::vector<Digest> digests_;
    DigestTable table_;
    std::vector<uint32_t> touched_;  // by batch number: pages of this batch that came before
    uint32_t batch_ = 0;
};

// Writes the operations of a batch into `ram`; throws MalformedError without having read or written outside of it.
void apply_pages(uint8_t* ram, OpReader ops, Reader literals, Reader deltas);

}  // namespace novacron

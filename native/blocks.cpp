#include "blocks.h"

namespace novacron {

BlockEncoder::BlockEncoder(uint64_t blocks, const Key& key, bool fresh)
    : key_(key), index_(blocks, fresh) {}

void BlockEncoder::encode(const std::vector<uint32_t>& numbers, const uint8_t* data, Encoded& out) {
    const size_t count = numbers.size();
    std::vector<const uint8_t*> filled;
    for (size_t i = 0; i < count; ++i)
        if (const uint8_t* block = data + i * kPageBytes; !is_zero(block)) filled.push_back(block);
    std::vector<Digest> digests(filled.size());
    digest_pages(key_, filled.data(), filled.size(), digests.data());

    OpWriter ops;
    size_t next = 0;
    for (size_t i = 0; i < count; ++i) {
        const uint8_t* block = data + i * kPageBytes;
        const uint32_t number = numbers[i];
        const bool zero = next == filled.size() || filled[next] != block;
        const Digest digest = zero ? Digest{} : digests[next++];
        if (index_.of(number) == digest) {
            ++out.pages[kUnchangedClass];
            continue;
        }
        const uint32_t source = zero ? DigestTable::kNone : index_.find(digest);
        if (zero) {
            ops.add(kZero, number);
            ++out.pages[kZeroClass];
        } else if (source != DigestTable::kNone) {
            ops.add(kCopy, number, source);
            ++out.pages[kCopyClass];
        } else {
            ops.add(kLiteral, number);
            out.add_literal(block);
            ++out.pages[kLiteralClass];
        }
        index_.enter(number, digest);
    }
    out.ops = ops.take();
}

}  // namespace novacron

#include "pages.h"

#include <cstring>

namespace novacron {
namespace {

constexpr size_t kWorthwhile = kPageBytes * 3 / 4;  // a patch larger than this is no gain over the page
constexpr size_t kGap = 8;                          // equal bytes fewer than this do not end a run

// The patch from `old` to `fresh`, appended to `out`; false, and nothing appended, when it is not worthwhile.
bool append_patch(const uint8_t* old, const uint8_t* fresh, std::string& out) {
    const size_t begin = out.size();
    size_t end_of_run = 0, at = 0;
    while (true) {
        while (at + 8 <= kPageBytes && !std::memcmp(old + at, fresh + at, 8)) at += 8;
        while (at < kPageBytes && old[at] == fresh[at]) ++at;
        if (at == kPageBytes) break;
        size_t end = at + 1, equal = 0;
        for (size_t i = end; i < kPageBytes && equal < kGap; ++i) {
            if (old[i] == fresh[i]) {
                ++equal;
            } else {
                equal = 0;
                end = i + 1;
            }
        }
        put_uleb(out, at - end_of_run);
        put_uleb(out, end - at);
        for (size_t i = at; i < end; ++i) out.push_back(static_cast<char>(old[i] ^ fresh[i]));
        at = end_of_run = end;
        if (out.size() - begin > kWorthwhile) {
            out.resize(begin);
            return false;
        }
    }
    out.append(2, '\0');
    return true;
}

void apply_patch(uint8_t* page, Reader& deltas) {
    size_t at = 0;
    while (true) {
        const uint64_t skip = deltas.uleb(), length = deltas.uleb();
        if (!length) {
            if (skip) throw MalformedError("a patch with an empty run");
            return;
        }
        if (skip > kPageBytes - at || length > kPageBytes - at - skip) throw MalformedError("a patch past its page");
        const uint8_t* bytes = deltas.take(length);
        at += skip;
        for (size_t i = 0; i < length; ++i) page[at + i] ^= bytes[i];
        at += length;
    }
}

}  // namespace

PageEncoder::PageEncoder(uint8_t* shadow, uint64_t pages, const Key& key, bool fresh)
    : shadow_(shadow), key_(key), digests_(pages), table_(pages), told_(pages), touched_(pages) {
    if (fresh) return;
    constexpr size_t kStep = 256;
    std::vector<const uint8_t*> found;
    std::vector<uint32_t> numbers;
    std::vector<Digest> digests(kStep);
    for (uint64_t page = 0; page < pages; ++page) {
        if (const uint8_t* data = shadow + page * kPageBytes; !is_zero(data)) {
            found.push_back(data);
            numbers.push_back(static_cast<uint32_t>(page));
        }
        if (found.size() < kStep && page + 1 < pages) continue;
        digest_pages(key_, found.data(), found.size(), digests.data());
        for (size_t i = 0; i < found.size(); ++i) {
            digests_[numbers[i]] = digests[i];
            table_.enter(digests[i], numbers[i]);
        }
        found.clear();
        numbers.clear();
    }
}

void PageEncoder::adopt(const Digest* digests, size_t count) {
    for (size_t page = 0; page < count && page < digests_.size(); ++page) {
        if (digests_[page] == digests[page]) continue;
        digests_[page] = digests[page];
        told_[page] = true;
        if (!digests[page].none()) table_.enter(digests[page], static_cast<uint32_t>(page));
    }
}

void PageEncoder::encode(const uint32_t* numbers, const uint32_t* positions, size_t count, const uint8_t* data,
                         Encoded& out) {
    // Digests first, for many pages side by side; pages of zeros and pages that are what the other side holds need none.
    ++batch_;
    std::vector<const uint8_t*> changed;
    std::vector<uint8_t> known(count);  // 1: has a digest in `digests`, in order
    for (size_t i = 0; i < count; ++i) {
        if (positions[i] == kNoData) continue;
        const uint8_t* page = data + positions[i];
        if (is_zero(page)) continue;
        const bool has_bytes = !told_[numbers[i]] && !digests_[numbers[i]].none();
        if (has_bytes && !std::memcmp(page, shadow_ + size_t{numbers[i]} * kPageBytes, kPageBytes)) continue;
        known[i] = 1;
        changed.push_back(page);
    }
    std::vector<Digest> digests(changed.size());
    digest_pages(key_, changed.data(), changed.size(), digests.data());

    OpWriter ops;
    size_t next = 0;
    for (size_t i = 0; i < count; ++i) {
        const uint32_t number = numbers[i];
        const uint8_t* page = positions[i] == kNoData ? nullptr : data + positions[i];
        const bool seen_in_batch = touched_[number] == batch_;
        touched_[number] = batch_;
        Digest digest;
        if (known[i]) {
            digest = digests[next++];
        } else if (page && seen_in_batch && !is_zero(page)) {
            digest_pages(key_, &page, 1, &digest);  // it was equal before an earlier copy of it in this batch
        } else if (page && !is_zero(page)) {
            ++out.pages[kUnchangedClass];
            continue;
        }
        emit(number, page, digest, ops, out);
    }
    out.ops = ops.take();
}

// An all-zero digest stands for a page of zeros.
void PageEncoder::emit(uint32_t page, const uint8_t* data, const Digest& digest, OpWriter& ops, Encoded& out) {
    uint8_t* held = shadow_ + size_t{page} * kPageBytes;
    if (digests_[page] == digest && (digest.none() || told_[page] || !std::memcmp(held, data, kPageBytes))) {
        if (told_[page] && data) std::memcpy(held, data, kPageBytes);
        if (told_[page] && !data) std::memset(held, 0, kPageBytes);
        told_[page] = false;
        ++out.pages[kUnchangedClass];
        return;
    }
    const bool exact = !told_[page];
    told_[page] = false;
    if (digest.none()) {
        ops.add(kZero, page);
        ++out.pages[kZeroClass];
        std::memset(held, 0, kPageBytes);
        digests_[page] = digest;
        return;
    }
    if (uint32_t source; find(page, data, digest, source)) {
        ops.add(kCopy, page, source);
        ++out.pages[kCopyClass];
    } else if (size_t disk; find_block(digest, disk, source)) {
        ops.add(kBlock, page, source, disk);
        ++out.pages[kBlockClass];
    } else if (exact && !digests_[page].none() && append_patch(held, data, out.deltas)) {
        ops.add(kDelta, page);
        ++out.pages[kDeltaClass];
    } else {
        ops.add(kLiteral, page);
        out.add_literal(data);
        ++out.pages[kLiteralClass];
    }
    std::memcpy(held, data, kPageBytes);
    digests_[page] = digest;
    table_.enter(digest, page);
}

// There are no bytes to compare with: 128 bits under a key that the guest does not know decide, as for blocks of disks.
bool PageEncoder::find_block(const Digest& digest, size_t& disk, uint32_t& block) const {
    for (disk = 0; disk < disks_.size(); ++disk)
        if ((block = disks_[disk]->find(digest)) != DigestTable::kNone) return true;
    return false;
}

bool PageEncoder::find(uint32_t page, const uint8_t* data, const Digest& digest, uint32_t& source) const {
    const uint32_t* places = table_.bucket(digest);
    for (size_t i = 0; i < DigestTable::kWays; ++i) {
        const uint32_t other = places[i];
        if (other == DigestTable::kNone || other == page || !(digests_[other] == digest)) continue;
        // The bytes are compared too, where they are known: there no hash decides alone what a guest's memory becomes.
        if (!told_[other] && std::memcmp(shadow_ + size_t{other} * kPageBytes, data, kPageBytes)) continue;
        source = other;
        return true;
    }
    return false;
}

void apply_pages(uint8_t* ram, OpReader ops, Reader literals, Reader deltas, Reader blocks) {
    Op op;
    while (ops.next(op)) {
        for (uint64_t i = 0; i < op.count; ++i) {
            uint8_t* page = ram + (op.page + i) * kPageBytes;
            switch (op.kind) {
                case kZero:
                    std::memset(page, 0, kPageBytes);
                    break;
                case kCopy:
                    std::memmove(page, ram + (op.source + i) * kPageBytes, kPageBytes);
                    break;
                case kDelta:
                    apply_patch(page, deltas);
                    break;
                case kLiteral:
                    std::memcpy(page, literals.take(kPageBytes), kPageBytes);
                    break;
                case kBlock:
                    std::memcpy(page, blocks.take(kPageBytes), kPageBytes);
                    break;
            }
        }
    }
    if (!literals.empty() || !deltas.empty() || !blocks.empty()) throw MalformedError("bytes that no operation takes");
}

}  // namespace novacron

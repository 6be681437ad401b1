// The operations of a batch, as bytes. docs/batches.md is their specification.
//
//   op      = u8 kind, zigzag uleb128 (first page minus the end of the op before), uleb128 (number of pages)
//   COPY    adds zigzag uleb128 (source page minus first page); sources are consecutive like the pages
//   LITERAL takes 4,096 bytes a page from the literals
//   DELTA   takes one patch a page from the deltas: {uleb128 skip, uleb128 length, length bytes to XOR}*, then 0, 0
//   BLOCK   adds uleb128 disk, uleb128 block: the content of consecutive blocks of a disk that the other side has
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "blake3_pages.h"

namespace novacron {

enum Kind : uint8_t { kZero = 1, kCopy = 2, kDelta = 3, kLiteral = 4, kBlock = 5 };

struct MalformedError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void put_uleb(std::string& out, uint64_t value) {
    while (value >= 0x80) {
        out.push_back(static_cast<char>(value | 0x80));
        value >>= 7;
    }
    out.push_back(static_cast<char>(value));
}

inline void put_zigzag(std::string& out, int64_t value) {
    put_uleb(out, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

// Joins equal neighbours into one operation.
class OpWriter {
  public:
    void add(Kind kind, uint64_t page, uint64_t source = 0, uint64_t disk = 0) {
        const bool continues = count_ && kind == kind_ && page == first_ + count_ && disk == disk_ &&
                               ((kind != kCopy && kind != kBlock) || source == source_ + count_);
        if (!continues) {
            flush();
            kind_ = kind;
            first_ = page;
            source_ = source;
            disk_ = disk;
        }
        ++count_;
    }

    std::string take() {
        flush();
        end_ = 0;
        return std::move(out_);
    }

  private:
    void flush() {
        if (!count_) return;
        out_.push_back(static_cast<char>(kind_));
        put_zigzag(out_, static_cast<int64_t>(first_) - static_cast<int64_t>(end_));
        put_uleb(out_, count_);
        if (kind_ == kCopy) put_zigzag(out_, static_cast<int64_t>(source_) - static_cast<int64_t>(first_));
        if (kind_ == kBlock) {
            put_uleb(out_, disk_);
            put_uleb(out_, source_);
        }
        end_ = first_ + count_;
        count_ = 0;
    }

    std::string out_;
    Kind kind_ = kZero;
    uint64_t first_ = 0, count_ = 0, source_ = 0, disk_ = 0, end_ = 0;
};

struct Op {
    Kind kind;
    uint64_t page, count, source, disk;
};

class Reader {
  public:
    Reader(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

    bool empty() const { return at_ == end_; }

    const uint8_t* take(size_t count) {
        if (count > static_cast<size_t>(end_ - at_)) throw MalformedError("a section ends too early");
        at_ += count;
        return at_ - count;
    }

    uint64_t uleb() {
        uint64_t value = 0;
        for (int shift = 0; shift < 63; shift += 7) {
            const uint8_t byte = *take(1);
            value |= static_cast<uint64_t>(byte & 0x7F) << shift;
            if (!(byte & 0x80)) return value;
        }
        throw MalformedError("a number is too long");
    }

    int64_t zigzag() {
        const uint64_t value = uleb();
        return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
    }

  private:
    const uint8_t *at_, *end_;
};

class OpReader {
  public:
    OpReader(const uint8_t* data, size_t size, uint64_t pages) : reader_(data, size), pages_(pages) {}

    bool next(Op& op) {
        if (reader_.empty()) return false;
        const uint8_t kind = *reader_.take(1);
        if (kind < kZero || kind > kBlock) throw MalformedError("an operation of an unknown kind");
        op.kind = static_cast<Kind>(kind);
        op.page = bounded(static_cast<int64_t>(end_) + small(reader_.zigzag()), 1);
        op.count = reader_.uleb();
        if (!op.count || op.count > pages_) throw MalformedError("an operation on no page, or on too many");
        bounded(static_cast<int64_t>(op.page), op.count);
        op.source = op.disk = 0;
        if (op.kind == kBlock) {
            op.disk = reader_.uleb();
            op.source = reader_.uleb();
        }
        if (op.kind == kCopy) op.source = bounded(static_cast<int64_t>(op.page) + small(reader_.zigzag()), op.count);
        end_ = op.page + op.count;
        return true;
    }

  private:
    int64_t small(int64_t value) const {
        const int64_t limit = static_cast<int64_t>(pages_);
        if (value > limit || value < -limit) throw MalformedError("a step past every page");
        return value;
    }

    uint64_t bounded(int64_t page, uint64_t count) const {
        if (page < 0 || static_cast<uint64_t>(page) + count > pages_) throw MalformedError("a page outside");
        return static_cast<uint64_t>(page);
    }

    Reader reader_;
    uint64_t pages_, end_ = 0;
};

// A dedup table: digest → a page that had it when it was entered. Four places a bucket, the oldest gives way; whoever
// looks up checks that the page still has that digest, so an overwritten page answers no more.
class DigestTable {
  public:
    explicit DigestTable(uint64_t pages) {
        size_t buckets = 1;
        while (buckets * kWays < pages * 2) buckets *= 2;
        mask_ = buckets - 1;
        places_.assign(buckets * kWays, kNone);
    }

    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr size_t kWays = 4;

    const uint32_t* bucket(const Digest& digest) const { return &places_[(digest.low & mask_) * kWays]; }

    void enter(const Digest& digest, uint32_t page) {
        uint32_t* places = &places_[(digest.low & mask_) * kWays];
        for (size_t i = kWays - 1; i > 0; --i) places[i] = places[i - 1];
        places[0] = page;
    }

  private:
    std::vector<uint32_t> places_;
    size_t mask_ = 0;
};

inline bool is_zero(const uint8_t* page) {
    const auto* words = reinterpret_cast<const uint64_t*>(page);
    for (size_t i = 0; i < kPageBytes / 8; i += 8) {
        uint64_t any = 0;
        for (size_t j = 0; j < 8; ++j) any |= words[i + j];
        if (any) return false;
    }
    return true;
}

}  // namespace novacron

// Bindings: buffers in, bytes out, the GIL released while pages are worked on.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>

#include "blake3_pages.h"
#include "blocks.h"
#include "cuts.h"
#include "pages.h"
#include "records.h"
#include "sorted_records.h"

namespace nb = nanobind;
using namespace novacron;

namespace {

// A Python buffer, held for as long as this lives.
class Buffer {
  public:
    Buffer(nb::handle object, bool writable) {
        if (PyObject_GetBuffer(object.ptr(), &view_, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO)) throw nb::python_error();
    }
    ~Buffer() {
        nb::gil_scoped_acquire held;
        PyBuffer_Release(&view_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    uint8_t* data() const { return static_cast<uint8_t*>(view_.buf); }
    size_t size() const { return static_cast<size_t>(view_.len); }
    uint64_t pages() const {
        if (size() % kPageBytes) throw nb::value_error("not a whole number of pages");
        return size() / kPageBytes;
    }

  private:
    Py_buffer view_;
};

Key make_key(nb::bytes key) {
    if (key.size() != 32) throw nb::value_error("a key has 32 bytes");
    Key words;
    std::memcpy(words.data(), key.c_str(), 32);
    return words;
}

template <typename T>
nb::bytes as_bytes(const std::vector<T>& values) {
    return nb::bytes(values.data(), values.size() * sizeof(T));
}

nb::bytes as_bytes(const std::string& text) { return nb::bytes(text.data(), text.size()); }

template <typename Pairs>
nb::list as_list(const Pairs& pairs) {
    nb::list out;
    for (const auto& [first, second] : pairs) out.append(nb::make_tuple(first, second));
    return out;
}

std::vector<Digest> as_digests(nb::bytes bytes) {
    if (bytes.size() % sizeof(Digest)) throw nb::value_error("not a whole number of digests");
    std::vector<Digest> digests(bytes.size() / sizeof(Digest));
    std::memcpy(digests.data(), bytes.c_str(), bytes.size());
    return digests;
}

// What `encode` says of a batch with `most` pages of data. The literals are a Python object from the beginning.
template <typename Encode>
nb::tuple encoded_as_tuple(size_t most, Encode&& encode) {
    nb::object literals = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(most * kPageBytes)));
    if (!literals.is_valid()) throw nb::python_error();
    Encoded out(reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(literals.ptr())));
    {
        nb::gil_scoped_release released;
        encode(out);
    }
    PyObject* shrunk = literals.release().ptr();
    if (_PyBytes_Resize(&shrunk, static_cast<Py_ssize_t>(out.literal_bytes))) throw nb::python_error();
    return nb::make_tuple(as_bytes(out.ops), nb::steal(shrunk), as_bytes(out.deltas),
                          nb::make_tuple(out.pages[0], out.pages[1], out.pages[2], out.pages[3], out.pages[4],
                                         out.pages[5]));
}

nb::bytes digest_blocks(nb::handle object, nb::bytes key) {
    const Buffer buffer(object, false);
    const Key words = make_key(key);
    std::vector<Digest> digests(buffer.pages());
    {
        nb::gil_scoped_release released;
        std::vector<const uint8_t*> pages(digests.size());
        for (size_t i = 0; i < pages.size(); ++i) pages[i] = buffer.data() + i * kPageBytes;
        digest_pages(words, pages.data(), pages.size(), digests.data());
    }
    return as_bytes(digests);
}

class PyBlockEncoder {
  public:
    PyBlockEncoder(uint64_t blocks, nb::bytes key, bool fresh) : encoder_(blocks, make_key(key), fresh) {}

    // Runs of blocks (first, count), with their data one after the other.
    nb::tuple encode(const std::vector<std::pair<uint64_t, uint64_t>>& runs, nb::handle data) {
        const Buffer d(data, false);
        std::vector<uint32_t> numbers;
        numbers.reserve(d.pages());
        for (const auto& [first, count] : runs) {
            check(first, count);
            if (count > d.pages() - numbers.size()) throw nb::value_error("data for each block");
            for (uint64_t i = 0; i < count; ++i) numbers.push_back(static_cast<uint32_t>(first + i));
        }
        if (numbers.size() != d.pages()) throw nb::value_error("data for each block");
        return encoded_as_tuple(numbers.size(), [&](Encoded& out) { encoder_.encode(numbers, d.data(), out); });
    }

    void adopt(nb::bytes digests) {
        const auto words = as_digests(digests);
        nb::gil_scoped_release released;
        encoder_.adopt(words.data(), words.size());
    }

    void learn(nb::bytes digests) {
        const auto words = as_digests(digests);
        nb::gil_scoped_release released;
        encoder_.learn(words.data(), words.size());
    }

    nb::bytes digests() const { return as_bytes(encoder_.index().digests()); }

    nb::list held(uint64_t first, uint64_t count) const {
        check(first, count);
        return as_list(encoder_.index().held(first, count));
    }

    const BlockIndex& index() const { return encoder_.index(); }

  private:
    void check(uint64_t first, uint64_t count) const {
        const uint64_t blocks = encoder_.index().blocks();
        if (first > blocks || count > blocks - first) throw nb::value_error("a block outside");
    }

    BlockEncoder encoder_;
};

class PyPageEncoder {
  public:
    PyPageEncoder(nb::handle shadow, nb::bytes key, bool fresh) : shadow_(shadow, true) {
        const Key words = make_key(key);
        const uint64_t pages = shadow_.pages();
        nb::gil_scoped_release released;
        encoder_ = std::make_unique<PageEncoder>(shadow_.data(), pages, words, fresh);
    }

    nb::tuple encode(nb::handle numbers, nb::handle positions, nb::handle data) {
        const Buffer n(numbers, false), p(positions, false), d(data, false);
        if (n.size() % 4 || n.size() != p.size()) throw nb::value_error("one position for each page number");
        const size_t count = n.size() / 4;
        std::vector<uint32_t> page(count), at(count);
        std::memcpy(page.data(), n.data(), n.size());
        std::memcpy(at.data(), p.data(), p.size());
        size_t with_data = 0;
        for (size_t i = 0; i < count; ++i) {
            with_data += at[i] != kNoData;
            if (page[i] >= encoder_->pages()) throw nb::value_error("a page outside");
            if (at[i] != kNoData && (d.size() < kPageBytes || at[i] > d.size() - kPageBytes))
                throw nb::value_error("data outside");
        }
        return encoded_as_tuple(with_data,
                                [&](Encoded& out) { encoder_->encode(page.data(), at.data(), count, d.data(), out); });
    }

    void adopt(nb::bytes digests) {
        const auto words = as_digests(digests);
        nb::gil_scoped_release released;
        encoder_->adopt(words.data(), words.size());
    }

    // The encoders of the disks, held for as long as this lives.
    void look_into(nb::list disks) {
        std::vector<const BlockIndex*> found;
        for (nb::handle disk : disks) found.push_back(&nb::cast<const PyBlockEncoder&>(disk).index());
        disks_ = disks;
        encoder_->look_into(std::move(found));
    }

    nb::bytes digests() const { return as_bytes(encoder_->digests()); }

  private:
    Buffer shadow_;
    nb::list disks_;
    std::unique_ptr<PageEncoder> encoder_;
};

void apply(nb::handle ram, nb::handle ops, nb::handle literals, nb::handle deltas, nb::handle blocks) {
    const Buffer r(ram, true), o(ops, false), l(literals, false), d(deltas, false), b(blocks, false);
    const uint64_t pages = r.pages();
    nb::gil_scoped_release released;
    apply_pages(r.data(), OpReader(o.data(), o.size(), pages), Reader(l.data(), l.size()), Reader(d.data(), d.size()),
                Reader(b.data(), b.size()));
}

nb::list read_ops(nb::handle ops, uint64_t pages) {
    const Buffer o(ops, false);
    OpReader reader(o.data(), o.size(), pages);
    nb::list out;
    Op op;
    while (reader.next(op)) out.append(nb::make_tuple(static_cast<int>(op.kind), op.page, op.count, op.source));
    return out;
}

// Disk, first block and number of blocks of every BLOCK operation, in order.
nb::list block_runs(nb::handle ops, uint64_t pages) {
    const Buffer o(ops, false);
    OpReader reader(o.data(), o.size(), pages);
    nb::list out;
    Op op;
    while (reader.next(op))
        if (op.kind == kBlock) out.append(nb::make_tuple(op.disk, op.source, op.count));
    return out;
}

nb::list cut_chunks(nb::handle data, nb::object key) {
    const Buffer d(data, false);
    if (d.size() / kPageBytes >= UINT32_MAX) throw nb::value_error("more than can be cut at once");
    const Key words = key.is_none() ? Key{} : make_key(nb::cast<nb::bytes>(key));
    const bool fixed = key.is_none();
    Cuts cuts;
    {
        nb::gil_scoped_release released;
        cuts = fixed ? cut_fixed(d.data(), d.size()) : cut_by_content(d.data(), d.size(), words);
    }
    return as_list(cuts);
}

nb::list find_in_records(nb::handle records, size_t first, size_t count, size_t width, nb::bytes prefixes) {
    const Buffer r(records, false);
    if (width < kPrefixBytes || first > r.size() || count > (r.size() - first) / width || count >= UINT32_MAX ||
        prefixes.size() % kPrefixBytes)
        throw nb::value_error("records or prefixes that cannot be");
    std::vector<std::pair<uint32_t, uint32_t>> found;
    {
        nb::gil_scoped_release released;
        found = find_records(r.data() + first, count, width, reinterpret_cast<const uint8_t*>(prefixes.c_str()),
                             prefixes.size() / kPrefixBytes);
    }
    return as_list(found);
}

nb::tuple scan(nb::handle data, size_t position, int current, const std::vector<std::string>& names,
               const std::vector<uint64_t>& lengths) {
    const Buffer d(data, false);
    if (names.size() != lengths.size() || names.size() > 64 || position > d.size() || d.size() > UINT32_MAX ||
        current >= static_cast<int>(names.size()))
        throw nb::value_error("blocks or positions that cannot be");
    std::vector<Block> blocks;
    for (size_t i = 0; i < names.size(); ++i) blocks.push_back({names[i], lengths[i]});
    Scan out;
    {
        nb::gil_scoped_release released;
        out = scan_records(d.data(), d.size(), position, current, blocks);
    }
    return nb::make_tuple(static_cast<int>(out.stop), out.position, out.current, as_bytes(out.blocks),
                          as_bytes(out.pages), as_bytes(out.positions), out.detail);
}

}  // namespace

NB_MODULE(_kernels, m) {
    m.doc() = "Kernels on pages and blocks: batches in, batches out, the GIL released.";
    nb::exception<MalformedError>(m, "MalformedError", PyExc_ValueError);
    m.def("digest_blocks", &digest_blocks);
    m.def("apply_pages", &apply);
    m.def("read_ops", &read_ops);
    m.def("block_runs", &block_runs);
    m.def("scan_records", &scan);
    m.def("cut_chunks", &cut_chunks, nb::arg(), nb::arg().none());
    m.def("find_records", &find_in_records);
    nb::class_<PyBlockEncoder>(m, "BlockEncoder")
        .def(nb::init<uint64_t, nb::bytes, bool>())
        .def("encode", &PyBlockEncoder::encode)
        .def("adopt", &PyBlockEncoder::adopt)
        .def("learn", &PyBlockEncoder::learn)
        .def("digests", &PyBlockEncoder::digests)
        .def("held", &PyBlockEncoder::held);
    nb::class_<PyPageEncoder>(m, "PageEncoder")
        .def(nb::init<nb::handle, nb::bytes, bool>())
        .def("encode", &PyPageEncoder::encode)
        .def("digests", &PyPageEncoder::digests)
        .def("adopt", &PyPageEncoder::adopt)
        .def("look_into", &PyPageEncoder::look_into);
}

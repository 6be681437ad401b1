"""QEMU's stream is taken apart the same however it arrives, and what is damaged ends clearly, within its bounds."""

import random
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from migration.qemu_stream import MAIN, PAGE, ROM, Written
from novacron.migration.errors import StreamRefusedError
from novacron.migration.stream import MAX_WAITING_BYTES, NO_DATA, DeviceState, Pages, Relay, StreamSplitter

CONTENTS = st.one_of(st.none(), st.binary(min_size=1, max_size=4).map(lambda seed: (seed * PAGE)[:PAGE]))
RECORDS = st.lists(
    st.one_of(
        st.tuples(st.just(MAIN), st.integers(0, 7), CONTENTS), st.tuples(st.just(ROM), st.integers(0, 1), CONTENTS)
    ),
    max_size=12,
)


def take_apart(pieces, *, main_pages: int = 8):
    """Relayed bytes, pages of the main block in order, whether the device state came; the splitter."""
    splitter = StreamSplitter(ram_bytes=main_pages * PAGE)
    relayed, pages, device = bytearray(), [], 0
    for piece in pieces:
        for item in feed(splitter, piece):
            match item:
                case Relay(data):
                    relayed += data
                case Pages():
                    pages += contents(item)
                case DeviceState():
                    device += 1
        assert splitter._end <= MAX_WAITING_BYTES
    return bytes(relayed), pages, device, splitter


def feed(splitter: StreamSplitter, data) -> list:
    """As a socket would: as much at a time as there is room for."""
    items, rest = [], memoryview(bytes(data))
    while rest:
        count = min(len(rest), len(splitter.room()))
        splitter.room()[:count] = rest[:count]
        items += splitter.filled(count)
        rest = rest[count:]
    return items


def contents(item: Pages) -> list[tuple[int, bytes | None]]:
    numbers, positions = memoryview(item.numbers).cast("I"), memoryview(item.positions).cast("I")
    return [
        (number, None if position == NO_DATA else item.data[position : position + PAGE])
        for number, position in zip(numbers, positions, strict=True)
    ]


def cut(data: bytes, borders) -> list[bytes]:
    at = sorted({border % (len(data) + 1) for border in borders})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@given(
    parts=st.lists(RECORDS, max_size=4),
    last=RECORDS,
    borders=st.lists(st.integers(0, 1 << 20), max_size=30),
    ping=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_however_it_is_cut_the_same_comes_out(parts, last, borders, ping):
    stream = Written().begin(ping=ping)
    for records in parts:
        stream.part(records)
    stream.part(last, last=True).end()
    relayed, pages, device, splitter = take_apart(cut(bytes(stream.data), borders))
    assert pages == stream.pages
    assert relayed == bytes(stream.relayed)
    assert device == 1
    assert splitter.opaque


def test_byte_by_byte_too():
    stream = Written().begin().part([(MAIN, 1, b"x" * PAGE), (ROM, 0, None), (MAIN, 2, None)]).part([], last=True).end()
    relayed, pages, device, _ = take_apart(bytes([byte]) for byte in stream.data)
    assert (pages, relayed, device) == (stream.pages, bytes(stream.relayed), 1)


def test_what_a_read_brings_of_pages_comes_at_once_whatever_lies_between():
    stream = Written().begin().part([(MAIN, 1, b"x" * PAGE), (ROM, 0, b"r" * PAGE), (MAIN, 2, None)])
    stream.part([(MAIN, 1, b"y" * PAGE)]).part([(MAIN, 3, b"z" * PAGE)], last=True).end()
    first, *rest = feed(StreamSplitter(ram_bytes=8 * PAGE), stream.data)
    assert contents(first) == stream.pages
    assert [type(item) for item in rest] == [Relay, DeviceState, Relay]
    assert rest[0].data + rest[2].data == bytes(stream.relayed)


def damaged(rng: random.Random) -> bytes:
    """A right stream with a few bytes changed, cut out, or put in."""
    blocks = [(MAIN, rng.randrange(8)), (ROM, rng.randrange(2))]
    records = [(*rng.choice(blocks), rng.choice([None, rng.randbytes(4) * 1024])) for _ in range(rng.randrange(4))]
    data = bytearray(Written().begin().part(records).part(records[:1], last=True).end().data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(data), rng.choice([60, 200, len(data)])))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


def survive(cases: int, seed: int) -> int:
    """Feed damaged streams; how many were refused. Anything but a refusal or a result is an error."""
    rng, refused = random.Random(seed), 0
    for _ in range(cases):
        data = damaged(rng)
        try:
            _, pages, _, _ = take_apart(cut(data, [rng.randrange(1 << 20) for _ in range(3)]))
        except StreamRefusedError:
            refused += 1
        else:
            assert all(0 <= number < 8 and (page is None or len(page) == PAGE) for number, page in pages)
    return refused


def test_a_damaged_stream_is_refused_or_read_but_never_breaks_the_parser():
    assert survive(3000, seed=1) > 500


@pytest.mark.soak
def test_a_hundred_thousand_damaged_streams():
    assert survive(100_000, seed=2) > 10_000


@pytest.mark.parametrize("tail", [b"\x07\xff\xff\xff\xff", b"\x08\x00\x02\xff\xff", b"\x01\0\0\0\2\xff"])
def test_what_a_damaged_length_announces_is_not_taken(tail):
    splitter = StreamSplitter(ram_bytes=8 * PAGE)

    def feed_on() -> None:
        feed(splitter, bytes.fromhex("5145564d00000003") + tail)
        for _ in range(64):
            feed(splitter, bytes(64 * 1024))

    tracemalloc.start()
    try:
        with pytest.raises(StreamRefusedError):
            feed_on()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * MAX_WAITING_BYTES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n", "not a QEMU migration stream"),
        (bytes.fromhex("5145564d00000003") + b"\x04", "virtio-mem"),
        (bytes.fromhex("5145564d00000003") + b"\x55", "unknown section type 0x55"),
        (bytes.fromhex("5145564d00000003") + b"\x08\0\x07\0\0", "command 7"),
        (bytes.fromhex("5145564d00000003") + b"\x07\0\0\0\1x\x05", "subsections"),
        (bytes.fromhex("5145564d00000003") + b"\x01\0\0\0\2\x03abc" + bytes(8), "'abc' version 0"),
        (bytes.fromhex("5145564d00000003") + b"\x02\0\0\0\7", "section 7 is not the RAM section"),
    ],
)
def test_what_is_not_known_is_refused_by_name(data, said):
    with pytest.raises(StreamRefusedError, match=said):
        feed(StreamSplitter(ram_bytes=8 * PAGE), data)


@pytest.mark.parametrize(
    ("main_pages", "rom_pages", "said"), [(9, 2, "has 36864 bytes, not 32768"), (8, 0, "'pc.rom' has 0 bytes")]
)
def test_a_table_of_blocks_that_does_not_fit_is_refused(main_pages, rom_pages, said):
    stream = Written(main_pages=main_pages, rom_pages=rom_pages)
    if not rom_pages:
        stream.rom_pages = 1
        stream.begin()
        end = bytes(stream.data).index(b"pc.rom") + 6
        stream.data[end : end + 8] = bytes(8)
    else:
        stream.begin()
    with pytest.raises(StreamRefusedError, match=said):
        take_apart([stream.data])


def test_a_record_of_an_unknown_kind_is_refused_before_the_guest_stops():
    stream = Written().begin()
    stream.data += b"\x02\0\0\0\2" + (0x100).to_bytes(8, "big")
    with pytest.raises(StreamRefusedError, match="RAM record"):
        take_apart([stream.data])


def test_a_page_outside_of_the_block_is_refused():
    stream = Written().begin().part([(MAIN, 8, b"x" * PAGE)])
    with pytest.raises(StreamRefusedError):
        take_apart([stream.data])

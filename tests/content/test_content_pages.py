"""Pages and blocks arrive as they were, however they are told; what is damaged is refused and touches nothing else."""

import mmap
import random
import resource
from array import array

import blake3
import pytest
from hypothesis import given, settings, strategies as st

from content import reference
from content.on_disk import write_all
from novacron.content.batch import pack_batch, unpack_batch
from novacron.content.blocks import BlockEncoder
from novacron.content.codec import decode, encode
from novacron.content.digest import digest_blocks
from novacron.content.encoded import Encoded
from novacron.content.errors import MalformedContentError
from novacron.content.pages import NO_DATA, PageEncoder, apply_pages, block_runs
from novacron.core.units import PAGE_BYTES

KEY = bytes(range(32))
PAGES = 24
UNCHANGED, ZEROS, COPIES, DELTAS, LITERALS, BLOCKS = range(6)


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(PAGE_BYTES)


def touched(page: bytes, places: list[int]) -> bytes:
    changed = bytearray(page)
    for place in places:
        changed[place % PAGE_BYTES] ^= 0x5A
    return bytes(changed)


CONTENT = st.one_of(
    st.none(),
    st.just(bytes(PAGE_BYTES)),
    st.integers(0, 5).map(noise),
    st.builds(touched, st.integers(0, 2).map(noise), st.lists(st.integers(0, PAGE_BYTES - 1), max_size=9)),
)
BATCH = st.lists(st.tuples(st.integers(0, PAGES - 1), CONTENT), max_size=40)


def encoded(encoder: PageEncoder, batch) -> Encoded:
    data, numbers, positions = bytearray(b"head"), array("I"), array("I")
    for number, content in batch:
        numbers.append(number)
        positions.append(NO_DATA if content is None else len(data))
        data += content or b""
    return encoder.encode(numbers, positions, bytes(data))


@given(
    batches=st.lists(BATCH, max_size=4),
    before=st.just([None] * PAGES) | st.lists(CONTENT, min_size=PAGES, max_size=PAGES),
)
@settings(max_examples=200, deadline=None)
def test_what_is_told_is_what_the_other_side_has_then(batches, before):
    start = b"".join(content or bytes(PAGE_BYTES) for content in before)
    shadow, ram, model, wanted = bytearray(start), bytearray(start), bytearray(start), bytearray(start)
    encoder = PageEncoder(shadow, KEY, fresh=not any(shadow))
    for batch in batches:
        told = encoded(encoder, batch)
        for number, content in batch:
            wanted[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = content or bytes(PAGE_BYTES)
        apply_pages(ram, unpack_batch(pack_batch(told, level=1).body))
        reference.apply(model, told.ops, told.literals, told.deltas)
        assert sum(told.counts) == len(batch)
        assert len(told.literals) == told.counts[LITERALS] * PAGE_BYTES
        assert ram == model == wanted == shadow
    assert encoder.digests() == PageEncoder(bytearray(wanted), KEY).digests()


def test_a_fresh_picture_takes_memory_only_where_something_is_told():
    pages = 16384
    shadow = mmap.mmap(-1, pages * PAGE_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    told = encoded(PageEncoder(shadow, KEY, fresh=True), [(number, None) for number in range(pages)] + [(7, noise(7))])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 4
    assert told.counts[LITERALS] == 1
    assert shadow[7 * PAGE_BYTES : 8 * PAGE_BYTES] == noise(7)


def classes(shadow: bytearray, *batch) -> tuple[int, ...]:
    return encoded(PageEncoder(shadow, KEY), batch).counts


def test_each_page_is_told_in_the_cheapest_way():
    held = bytearray(noise(1) + noise(2) + bytes(PAGE_BYTES))
    assert classes(bytearray(held), (0, noise(1)))[UNCHANGED] == 1
    assert classes(bytearray(held), (2, None))[UNCHANGED] == 1
    assert classes(bytearray(held), (0, bytes(PAGE_BYTES)))[ZEROS] == 1
    assert classes(bytearray(held), (2, noise(1)))[COPIES] == 1
    assert classes(bytearray(held), (0, touched(noise(1), [7])))[DELTAS] == 1
    assert classes(bytearray(held), (0, noise(9)))[LITERALS] == 1
    assert classes(bytearray(held), (2, noise(9)), (1, noise(9)))[COPIES] == 1


@given(batches=st.lists(BATCH, max_size=3), held=st.lists(CONTENT, min_size=PAGES, max_size=PAGES))
@settings(max_examples=200, deadline=None)
def test_what_the_other_side_says_that_it_holds_is_leant_on_by_its_digests(batches, held):
    ram = bytearray(b"".join(content or bytes(PAGE_BYTES) for content in held))
    model, told_of = bytearray(ram), PageEncoder(bytearray(ram), KEY)
    encoder = PageEncoder(bytearray(len(ram)), KEY)
    encoder.adopt(told_of.digests())
    assert encoder.digests() == told_of.digests()
    for batch in batches:
        wanted = bytearray(ram)
        for number, content in batch:
            wanted[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = content or bytes(PAGE_BYTES)
        told = encoded(encoder, batch)
        apply_pages(ram, told)
        reference.apply(model, told.ops, told.literals, told.deltas)
        assert ram == model == wanted


def test_a_page_known_by_its_digest_is_unchanged_or_a_source_and_no_base_of_a_delta():
    there = PageEncoder(bytearray(noise(1) + noise(2) + bytes(2 * PAGE_BYTES)), KEY)
    encoder = PageEncoder(bytearray(4 * PAGE_BYTES), KEY)
    encoder.adopt(there.digests())
    assert encoded(encoder, [(0, noise(1)), (3, None)]).counts[UNCHANGED] == 2
    assert encoded(encoder, [(2, noise(2))]).counts[COPIES] == 1
    assert encoded(encoder, [(1, touched(noise(2), [5]))]).counts[LITERALS] == 1
    assert encoded(encoder, [(0, touched(noise(1), [5]))]).counts[DELTAS] == 1  # its bytes are known by now
    with pytest.raises(ValueError, match="whole number of digests"):
        encoder.adopt(b"half a digest")


@given(held=st.lists(CONTENT, min_size=8, max_size=8), fresh=st.lists(CONTENT, min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_disk_that_says_what_it_holds_is_sent_the_rest(held, fresh):
    there = bytearray(b"".join(content or bytes(PAGE_BYTES) for content in held))
    here = b"".join(content or bytes(PAGE_BYTES) for content in fresh)
    index = BlockEncoder(len(there), KEY, fresh=True)
    index.encode([(0, len(there))], there)
    encoder = BlockEncoder(len(there), KEY, fresh=False)
    encoder.adopt(index.digests())
    told = encoder.encode([(0, len(here))], here)
    equal = sum(here[at : at + PAGE_BYTES] == there[at : at + PAGE_BYTES] for at in range(0, len(here), PAGE_BYTES))
    write_all(there, told)
    assert there == here
    assert told.counts[UNCHANGED] == equal


WRITES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 7), CONTENT), max_size=8)


def referred(told: Encoded, disks: list[bytearray]) -> bytes:
    """What a destination reads for the references of a batch."""
    return b"".join(
        disks[disk][first * PAGE_BYTES : (first + count) * PAGE_BYTES] for disk, first, count in block_runs(told, PAGES)
    )


@given(rounds=st.lists(st.tuples(WRITES, BATCH), max_size=4))
@settings(max_examples=200, deadline=None)
def test_pages_that_a_disk_over_there_holds_are_told_by_its_blocks(rounds):
    disks = [bytearray(8 * PAGE_BYTES), bytearray(8 * PAGE_BYTES)]
    blocks = [BlockEncoder(len(disk), KEY, fresh=True) for disk in disks]
    shadow, ram, model = (bytearray(PAGES * PAGE_BYTES) for _ in range(3))
    encoder = PageEncoder(shadow, KEY)
    encoder.look_into(blocks)
    for writes, batch in rounds:
        for disk, block, content in writes:
            write_all(
                disks[disk], blocks[disk].encode([(block * PAGE_BYTES, PAGE_BYTES)], content or bytes(PAGE_BYTES))
            )
        told = unpack_batch(pack_batch(encoded(encoder, batch), level=1).body)
        apply_pages(ram, told, referred(told, disks))
        reference.apply(model, told.ops, told.literals, told.deltas, disks)
        assert ram == model == shadow


def test_a_block_is_told_when_no_page_is_equal_and_only_while_it_is_there():
    disk = BlockEncoder(4 * PAGE_BYTES, KEY, fresh=True)
    disk.encode([(PAGE_BYTES, 2 * PAGE_BYTES)], noise(1) + noise(2))
    encoder = PageEncoder(bytearray(8 * PAGE_BYTES), KEY)
    encoder.look_into([disk])
    told = encoded(encoder, [(0, noise(1)), (1, noise(2)), (2, noise(1))])
    assert (told.counts[BLOCKS], told.counts[COPIES], told.literals) == (2, 1, b"")
    assert block_runs(told, 8) == [(0, 1, 2)]
    disk.encode([(PAGE_BYTES, PAGE_BYTES)], noise(3))
    told = encoded(encoder, [(0, None), (2, None), (1, noise(1)), (3, noise(3))])
    assert (told.counts[BLOCKS], told.counts[LITERALS]) == (1, 1)


def test_a_disk_of_which_nothing_is_known_is_not_referred_to():
    encoder = PageEncoder(bytearray(PAGE_BYTES), KEY)
    encoder.look_into([BlockEncoder(PAGE_BYTES, KEY, fresh=False)])
    assert encoded(encoder, [(0, b"\xff" * PAGE_BYTES)]).counts[LITERALS] == 1


def test_a_page_that_was_overwritten_is_no_source_any_more():
    shadow = bytearray(noise(1) + bytes(2 * PAGE_BYTES))
    ram = bytearray(shadow)
    told = encoded(PageEncoder(shadow, KEY), [(0, noise(2)), (1, noise(1))])
    apply_pages(ram, told)
    assert told.counts[COPIES] == 0
    assert ram == shadow == bytearray(noise(2) + noise(1) + bytes(PAGE_BYTES))


@pytest.mark.parametrize("pages", [0, 1, 7, 8, 9, 64])
def test_digests_are_blake3_under_a_key_cut_to_128_bits(pages):
    data = random.Random(pages).randbytes(pages * PAGE_BYTES)
    blocks = [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]
    assert digest_blocks(data, KEY) == b"".join(blake3.blake3(block, key=KEY).digest(16) for block in blocks)
    assert not pages or digest_blocks(data, KEY) != digest_blocks(data, bytes(32))


def test_digests_want_whole_blocks():
    with pytest.raises(ValueError, match="whole number"):
        digest_blocks(bytes(PAGE_BYTES + 1), KEY)


def test_an_encoder_refuses_pages_and_data_outside():
    encoder = PageEncoder(bytearray(2 * PAGE_BYTES), KEY)
    with pytest.raises(ValueError, match=r".+"):
        encoder.encode(array("I", [2]), array("I", [NO_DATA]), b"")
    with pytest.raises(ValueError, match=r".+"):
        encoder.encode(array("I", [0]), array("I", [1]), bytes(PAGE_BYTES))


def test_damaged_batches_are_refused_and_write_nothing_outside():
    rng = random.Random(4)
    shadow = bytearray(noise(1) + noise(2) + bytes(6 * PAGE_BYTES))
    start = bytes(shadow)
    told = encoded(
        PageEncoder(shadow, KEY),
        [(0, touched(noise(1), [3, 900])), (3, noise(1)), (4, noise(7)), (1, None), (5, noise(2))],
    )
    body = pack_batch(told, level=1).body
    refused = 0
    for _ in range(4000):
        damaged = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(min(len(damaged), 60)) if rng.random() < 0.7 else rng.randrange(len(damaged))] ^= (
                1 << rng.randrange(8)
            )
        fence = bytearray(b"\xaa" * PAGE_BYTES + start + b"\xaa" * PAGE_BYTES)
        try:
            apply_pages(memoryview(fence)[PAGE_BYTES:-PAGE_BYTES], unpack_batch(damaged))
        except MalformedContentError:
            refused += 1
        assert fence[:PAGE_BYTES] == fence[-PAGE_BYTES:] == b"\xaa" * PAGE_BYTES
    assert refused > 2000


@pytest.mark.parametrize(
    "told",
    [
        Encoded(bytes([9, 0, 1]), b"", b"", (0,) * 6),  # an unknown kind
        Encoded(bytes([1, 0, 0]), b"", b"", (0,) * 6),  # no page
        Encoded(bytes([1, 0, 99]), b"", b"", (0,) * 6),  # more pages than there are
        Encoded(bytes([2, 0, 1, 99]), b"", b"", (0,) * 6),  # a source outside
        Encoded(bytes([4, 0, 1]), b"x" * 4095, b"", (0,) * 6),  # a literal that ends too early
        Encoded(b"", b"x" * 4096, b"", (0,) * 6),  # a literal that nobody takes
        Encoded(bytes([3, 0, 1]), b"", b"\xff\xff\x03\x01x\0\0", (0,) * 6),  # a patch that leaves its page
        Encoded(bytes([1, 0]), b"", b"", (0,) * 6),  # an operation that ends too early
        Encoded(bytes([1, *[0x80] * 10, 1]), b"", b"", (0,) * 6),  # a number that does not end
        Encoded(bytes([5, 0, 1, 0, 7]), b"", b"", (0,) * 6),  # a block whose content nobody gave
    ],
)
def test_every_way_of_being_malformed_is_refused(told):
    with pytest.raises(MalformedContentError):
        apply_pages(bytearray(4 * PAGE_BYTES), told)


@given(writes=st.lists(st.tuples(st.integers(0, PAGES - 1), st.lists(CONTENT, min_size=1, max_size=6)), max_size=8))
@settings(max_examples=200, deadline=None)
def test_blocks_of_a_disk_arrive_as_they_were(writes):
    here, there = bytearray(PAGES * PAGE_BYTES), bytearray(PAGES * PAGE_BYTES)
    encoder = BlockEncoder(len(here), KEY, fresh=True)
    for first, contents in writes:
        contents = contents[: PAGES - first]  # noqa: PLW2901 - what lies on the disk
        data = b"".join(content or bytes(PAGE_BYTES) for content in contents)
        here[first * PAGE_BYTES : first * PAGE_BYTES + len(data)] = data
        told = encoder.encode([(first * PAGE_BYTES, len(data))], data)
        write_all(there, unpack_batch(pack_batch(told, level=1).body))
        assert sum(told.counts) == len(contents)
    assert there == here


@given(here=st.lists(CONTENT, min_size=PAGES, max_size=PAGES), marked=st.sets(st.integers(0, PAGES - 1)))
@settings(max_examples=100, deadline=None)
def test_runs_of_blocks_that_lie_apart_go_together(here, marked):
    there = bytearray(PAGES * PAGE_BYTES)
    numbers = sorted(marked)
    data = b"".join(here[number] or bytes(PAGE_BYTES) for number in numbers)
    runs = [(number * PAGE_BYTES, PAGE_BYTES) for number in numbers]
    told = BlockEncoder(len(there), KEY, fresh=True).encode(runs, data)
    write_all(there, told)
    for number in range(PAGES):
        wanted = here[number] if number in marked else None
        assert there[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] == (wanted or bytes(PAGE_BYTES))


@pytest.mark.parametrize("runs", [[(0, PAGE_BYTES)], [(0, 3 * PAGE_BYTES)], [(PAGES * PAGE_BYTES, 2 * PAGE_BYTES)]])
def test_runs_that_are_not_the_datas_are_refused(runs):
    with pytest.raises(ValueError, match="block"):
        BlockEncoder(PAGES * PAGE_BYTES, KEY, fresh=True).encode(runs, bytes(2 * PAGE_BYTES))


def test_zeros_on_a_disk_that_is_not_fresh_are_told():
    there = bytearray(noise(1))
    write_all(there, BlockEncoder(PAGE_BYTES, KEY, fresh=False).encode([(0, PAGE_BYTES)], bytes(PAGE_BYTES)))
    assert there == bytes(PAGE_BYTES)
    assert BlockEncoder(PAGE_BYTES, KEY, fresh=True).encode([(0, PAGE_BYTES)], bytes(PAGE_BYTES)).ops == b""


@pytest.mark.parametrize(
    "told",
    [
        Encoded(bytes([3, 0, 1]), b"", b"\0\0", (0,) * 6),  # blocks have no patches
        Encoded(bytes([5, 0, 1, 0, 0]), b"", b"", (0,) * 6),  # nor do they refer to other disks
        Encoded(bytes([4, 0, 1]), b"short", b"", (0,) * 6),
        Encoded(b"", b"left over", b"", (0,) * 6),
        Encoded(bytes([1, 0, 0xFF, 0x7F]), b"", b"", (0,) * 6),
    ],
)
def test_malformed_blocks_are_refused(told):
    with pytest.raises(MalformedContentError):
        write_all(bytearray(4 * PAGE_BYTES), told)


@pytest.mark.parametrize("level", [0, -5, 1, 9])
@pytest.mark.parametrize("data", [b"", b"x", b"text " * 1000, noise(3)])
def test_a_codec_gives_back_what_it_took_and_never_grows_it(level, data):
    frame = encode(data, level)
    assert decode(frame, len(data)) == data
    assert len(frame) <= len(data) + 5


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\1\0\0",
        b"\0\2\0\0\0x",  # shorter than it says
        b"\2\1\0\0\0x",  # an unknown codec
        b"\1\1\0\0\0not zstd",
        b"\1\0\0\0\0",
        encode(b"y" * 5000, 1),  # larger than may be
        encode(b"y" * 900, 1)[:1] + (899).to_bytes(4, "little") + encode(b"y" * 900, 1)[5:],
    ],
)
def test_a_frame_that_lies_is_refused(frame):
    with pytest.raises(MalformedContentError):
        decode(frame, 1000)


@pytest.mark.parametrize("body", [b"", b"\2", b"\1", b"\1\xff\xff\xff\xff", b"\1\5\0\0\0\0\0\0\0\0"])
def test_a_batch_that_ends_too_early_is_refused(body):
    with pytest.raises(MalformedContentError):
        unpack_batch(body)

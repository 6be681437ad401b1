"""What a source learns of a disk that the other side has already, while the guest goes on writing to it."""

from hypothesis import given, settings, strategies as st

from content.on_disk import write_all
from novacron.content.blocks import BlockEncoder
from novacron.content.pages import NO_DATA, PageEncoder, apply_pages, block_runs
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.nbd.messages import DIRTY, Extent
from novacron.migration.known import except_for

KEY = bytes(range(32))
BLOCKS = 8
CONTENT = st.integers(0, 5).map(lambda kind: bytes([kind]) * PAGE_BYTES)  # few kinds: the same content in many places
WRITES = st.lists(st.tuples(st.integers(0, BLOCKS - 1), CONTENT), max_size=6)


def write(disk: bytearray, writes) -> list[Extent]:
    for block, content in writes:
        disk[block * PAGE_BYTES : (block + 1) * PAGE_BYTES] = content
    return [Extent(block * PAGE_BYTES, PAGE_BYTES, DIRTY) for block in {block for block, _ in writes}]


def send(encoder: BlockEncoder, extents: list[Extent], here: bytearray, there: bytearray) -> None:
    for extent in extents:
        piece = bytes(here[extent.offset : extent.offset + extent.length])
        write_all(there, encoder.encode([(extent.offset, extent.length)], piece))


@given(
    stood=st.lists(CONTENT, min_size=BLOCKS, max_size=BLOCKS),
    before=WRITES,
    while_it_was_sent=WRITES,
    while_it_was_read=WRITES,
    memory=st.lists(CONTENT, min_size=1, max_size=BLOCKS),
)
@settings(max_examples=300, deadline=None)
def test_what_stands_is_learnt_and_what_was_written_meanwhile_is_sent(
    stood, before, while_it_was_sent, while_it_was_read, memory
):
    there = bytearray(b"".join(stood))
    here = bytearray(there)
    encoder = BlockEncoder(len(here), KEY, fresh=False)
    marked = write(here, before)
    later = write(here, while_it_was_sent)
    send(encoder, marked, here, there)

    first_half = while_it_was_read[: len(while_it_was_read) // 2]
    write(here, first_half)
    index = BlockEncoder(len(here), KEY, fresh=True)
    index.encode([(0, len(here))], bytes(here))
    later += write(here, while_it_was_read)
    encoder.learn(except_for(index.digests(), later))
    send(encoder, later, here, there)
    assert there == here

    pages = PageEncoder(bytearray(len(memory) * PAGE_BYTES), KEY)
    pages.look_into([encoder])
    numbers, positions = (b"".join(n.to_bytes(4, "little") for n in values) for values in _places(memory))
    told = pages.encode(numbers, positions, b"".join(memory))
    ram = bytearray(len(memory) * PAGE_BYTES)
    runs = block_runs(told, len(memory))
    blocks = b"".join(there[first * PAGE_BYTES : (first + count) * PAGE_BYTES] for _, first, count in runs)
    apply_pages(ram, told, blocks)
    assert ram == b"".join(memory)


def _places(memory):
    """Page numbers, and where each page's data lies."""
    return range(len(memory)), [NO_DATA if not any(page) else at * PAGE_BYTES for at, page in enumerate(memory)]


def test_a_disk_that_stood_still_needs_no_page_of_it_sent():
    disk = b"".join(bytes([kind]) * PAGE_BYTES for kind in range(1, BLOCKS + 1))
    index = BlockEncoder(len(disk), KEY, fresh=True)
    index.encode([(0, len(disk))], disk)
    encoder = BlockEncoder(len(disk), KEY, fresh=False)
    encoder.learn(except_for(index.digests(), [Extent(0, PAGE_BYTES, DIRTY)]))
    pages = PageEncoder(bytearray(len(disk)), KEY)
    pages.look_into([encoder])
    numbers, positions = (
        b"".join(n.to_bytes(4, "little") for n in values) for values in (range(BLOCKS), range(0, len(disk), PAGE_BYTES))
    )
    told = pages.encode(numbers, positions, disk)
    assert block_runs(told, BLOCKS) == [(0, 1, BLOCKS - 1)]
    assert told.literals == disk[:PAGE_BYTES]

"""Where chunks begin and end: as docs/repository.md says, whatever lies around them."""

import random
import struct

import blake3
import pytest
from hypothesis import given, settings, strategies as st

from novacron.content.cuts import cut_by_content, cut_fixed
from novacron.repository.errors import DamagedError
from novacron.repository.regions import REGION_BYTES, Part, make_page, read_page

BLOCK = 4096
KEY = bytes(range(32))
SHORTEST, LONGEST = 4, 64
BELOW = 330382099


def block(number: int) -> bytes:
    """Block 0 is zeros; others differ by their number, which is repeated."""
    return struct.pack("<I", number) * (BLOCK // 4)


def blocks(numbers) -> bytes:
    return b"".join(map(block, numbers))


def by_the_book(content: bytes, key: bytes) -> list[tuple[int, int]]:
    """The words of the specification, one after the other."""
    found, first = [], None
    for number in range(-(-len(content) // BLOCK)):
        one = content[number * BLOCK : (number + 1) * BLOCK]
        if not any(one):
            if first is not None:
                found.append((first, number - first))
            first = None
            continue
        first = number if first is None else first
        length = number + 1 - first
        last = struct.unpack("<I", blake3.blake3(one, key=key).digest(4))[0] < BELOW
        if length == LONGEST or (length >= SHORTEST and last):
            found.append((first, length))
            first = None
    if first is not None:
        found.append((first, -(-len(content) // BLOCK) - first))
    return found


def test_the_vector_of_the_specification():
    content = blocks([*range(1, 41), 0, 0, *range(1, 41), *[7] * 100])
    assert cut_by_content(content, KEY) == [
        (0, 10),
        (10, 6),
        (16, 5),
        (21, 19),
        (42, 10),
        (52, 6),
        (58, 5),
        (63, 64),
        (127, 55),
    ]
    assert cut_fixed(content) == [(0, 64), (64, 64), (128, 54)]


@given(
    runs=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 80), st.booleans()), max_size=12),
    tail=st.integers(0, BLOCK - 1),
    key=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=200, deadline=None)
def test_cuts_are_those_of_the_specification_and_within_bounds(runs, tail, key):
    numbers = [first + (step if moves else 0) for first, length, moves in runs for step in range(length)]
    content = blocks(numbers) + b"\1" * tail
    cuts = cut_by_content(content, key)
    assert cuts == cut_by_content(content, key) == by_the_book(content, key)
    assert all(1 <= length <= LONGEST for _, length in cuts)
    covered = {at for first, length in cuts for at in range(first, first + length)}
    assert covered == {at for at, number in enumerate(numbers) if number} | ({len(numbers)} if tail else set())


def test_chunks_have_64_kib_on_average():
    cuts = cut_by_content(blocks(range(1, 20_001)), KEY)
    assert 15 < 20_000 / len(cuts) < 17


@given(before=st.integers(0, 200), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_same_content_elsewhere_gives_the_same_chunks(before, seed):
    """At once behind zeros; soon after other content."""
    numbers = random.Random(seed).sample(range(1, 1 << 20), 500)
    alone = chunks_of(blocks(numbers))
    assert chunks_of(blocks([0] * before + numbers + [0] * 9)) == alone
    shifted = chunks_of(blocks([*range(1 << 21, (1 << 21) + before), *numbers]))
    assert sum(len(chunk) for chunk in alone - shifted) <= 200 * BLOCK


def chunks_of(content: bytes) -> set[bytes]:
    cuts = cut_by_content(content, KEY)
    return {content[first * BLOCK : (first + length) * BLOCK] for first, length in cuts}


def test_another_repository_cuts_elsewhere():
    content = blocks(range(1, 2000))
    ends = [{first + length for first, length in cut_by_content(content, key)} for key in (KEY, bytes(32))]
    assert len(ends[0] & ends[1]) < 0.2 * len(ends[0])


def test_fixed_chunks_of_zeros_are_left_out():
    assert cut_fixed(bytes(300 * BLOCK)) == []
    assert cut_fixed(bytes(130 * BLOCK) + b"\1") == [(128, 3)]
    assert cut_fixed(b"") == cut_by_content(b"", KEY) == []


@given(lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 64)), max_size=40))
def test_a_page_tells_what_it_was_made_of(lengths):
    parts, at = [], 0
    for number, (gap, length) in enumerate(lengths):
        first = at + gap * BLOCK
        at = first + length * BLOCK
        if at <= REGION_BYTES:
            parts.append(Part(first, at, bytes([number]) * 32))
    assert read_page(make_page(parts)) == parts


@pytest.mark.parametrize("spans", [[(4, 8), (7, 9)], [(8, 9), (4, 5)], [(1000, 1040)]])
def test_a_page_that_cannot_be_is_told(spans):
    page = make_page([Part(first * BLOCK, end * BLOCK, bytes(32)) for first, end in spans])
    with pytest.raises(DamagedError):
        read_page(page)
    with pytest.raises(DamagedError):
        read_page(page[:-1])

"""Sorted records are found by their prefixes, however these lie."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from novacron.content.records import find_records

WIDTH = 19


def records_of(prefixes: list[bytes]) -> bytes:
    return b"".join(prefix + bytes(WIDTH - 16) for prefix in sorted(prefixes))


def by_looking_at_each(prefixes: list[bytes], wanted: list[bytes]) -> list[tuple[int, int]]:
    return [
        (number, record)
        for number, one in enumerate(wanted)
        for record, two in enumerate(sorted(prefixes))
        if one == two
    ]


prefixes = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 9).map(lambda n: n.to_bytes(16, "big")),
    st.integers(0, 9).map(lambda n: n.to_bytes(1, "big") * 16),
    st.integers(0, 9).map(lambda n: b"\xff" * 15 + bytes([246 + n])),
)


@given(there=st.lists(prefixes, max_size=60), wanted=st.lists(prefixes, max_size=20))
@settings(max_examples=300, deadline=None)
def test_every_record_of_a_prefix_is_found_and_no_other(there, wanted):
    found = find_records(b"head" + records_of(there), 4, len(there), WIDTH, b"".join(wanted))
    assert found == by_looking_at_each(there, wanted)


def test_digests_are_found_among_many():
    draw = random.Random(7)
    there = [draw.randbytes(16) for _ in range(20_000)]
    order = sorted(there)
    found = find_records(records_of(there), 0, len(there), WIDTH, b"".join(there))
    assert [order[record] for _, record in found] == there
    assert find_records(records_of(there), 0, len(there), WIDTH, draw.randbytes(16 * 1000)) == []


@pytest.mark.parametrize(("first", "count", "width"), [(0, 3, WIDTH), (1, 2, WIDTH), (39, 0, WIDTH), (0, 2, 15)])
def test_records_that_are_not_there_are_refused(first, count, width):
    with pytest.raises(ValueError, match="cannot be"):
        find_records(records_of([bytes(16)] * 2), first, count, width, bytes(16))

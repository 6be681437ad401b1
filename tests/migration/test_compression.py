"""The level follows what lets the most guest memory through."""

import random

import pytest

from novacron.content.encoded import Encoded
from novacron.core.clock import ManualClock
from novacron.launch.bench.memory import like_memory
from novacron.migration.compression import (
    FIRST,
    LEVELS,
    RAW,
    SAMPLE_BYTES,
    WINDOW_S,
    Compression,
    Cost,
    choose,
    cost_of,
)

MBYTE_S = 1e-6  # seconds a byte at 1 MB/s
COSTS = {  # of guest memory: MB/s of a processor, and share on the wire
    level: Cost(MBYTE_S / rate, share)
    for level, rate, share in zip(
        LEVELS, (5000, 800, 400, 170, 75, 56, 42), (1.0, 0.5, 0.4, 0.3, 0.25, 0.24, 0.235), strict=True
    )
}
TEXT = like_memory(SAMPLE_BYTES // 4096 * 2, seed=7)
NOISE = random.Random(7).randbytes(2 * SAMPLE_BYTES)


@pytest.mark.parametrize(
    ("link", "level"),
    [(10_000, RAW), (1250, RAW), (350, -5), (150, FIRST), (50, 3), (15, 5), (1, 5)],
)
def test_from_the_first_it_goes_to_the_cheapest_that_lets_nearly_the_most_through(link, level):
    assert choose(COSTS, MBYTE_S / link, 1.0, FIRST) == level


def test_a_level_that_lets_nearly_as_much_through_is_kept():
    assert choose(COSTS, MBYTE_S / 1, 1.0, 9) == 9
    assert choose(COSTS, MBYTE_S / 1, 1.0, 7) == 7


def test_more_bytes_must_pay_more_than_fewer():
    dear = Cost(1.4, 0.4)
    assert choose({RAW: Cost(0.0, 1.0), FIRST: dear}, 1.0, 1.0, FIRST) == FIRST
    assert choose({FIRST: dear, 3: Cost(1.0, 0.3)}, 1.0, 1.0, FIRST) == 3


def test_a_processor_that_is_shared_counts_for_less():
    assert choose(COSTS, MBYTE_S / 50, 1.0, 9) == 3
    assert choose(COSTS, MBYTE_S / 50, 4.0, 9) == -5


def as_memory(_: memoryview, level: int) -> Cost:
    return COSTS[level]


async def spend(
    clock: ManualClock,
    compression: Compression,
    content: bytes,
    windows: int,
    *,
    packing: float = 0,
    sending: float = 0,
    seconds: float = WINDOW_S,
    sent_bytes: int = 10**6,
) -> int:
    """Windows in which compression and the link were waited for in these shares; the level after them."""
    for _ in range(windows):
        compression.pack(Encoded(b"", content, b"", (0, 0, 0, 0, 1, 0)))
        with compression.packing():
            await clock.advance(packing * seconds)
        await clock.advance((1 - packing - sending) * seconds)
        with compression.sending(sent_bytes):
            await clock.advance(sending * seconds)
    return compression.level


async def test_a_slow_link_is_given_denser_content_a_fast_one_what_costs_nothing():
    clock = ManualClock()
    compression = Compression(clock, measure=as_memory)
    assert compression.level == FIRST
    assert await spend(clock, compression, TEXT, 4, sending=1, seconds=100) >= FIRST
    assert await spend(clock, compression, TEXT, 40, packing=1, sent_bytes=10**9) == RAW


async def test_what_does_not_compress_goes_raw():
    clock = ManualClock()
    compression = Compression(clock, measure=lambda _, level: Cost(COSTS[level].processor_s, 1.0))
    assert await spend(clock, compression, NOISE, 4, packing=0.6, sending=0.4, sent_bytes=10**9) == RAW


def test_a_level_costs_time_and_what_it_leaves():
    sample = memoryview(TEXT)
    raw, dense = cost_of(sample, RAW), cost_of(sample, 9)
    assert raw.link_bytes == pytest.approx(1, abs=0.001)
    assert dense.link_bytes < 0.5
    assert dense.processor_s > raw.processor_s


async def test_where_neither_is_waited_for_it_stays():
    clock = ManualClock()
    compression = Compression(clock, measure=as_memory)
    assert await spend(clock, compression, TEXT, 9, sending=0.2, packing=0.2, sent_bytes=10**9) == FIRST


async def test_a_link_that_was_the_slowest_is_remembered_while_compression_is():
    clock = ManualClock()
    compression = Compression(clock, measure=as_memory)
    slow = await spend(clock, compression, TEXT, 4, sending=1, seconds=100)
    assert await spend(clock, compression, TEXT, 4, packing=0.9, sending=0.01, seconds=100) == slow


async def test_waits_that_overlap_count_once():
    clock = ManualClock()
    compression = Compression(clock, measure=as_memory)
    for _ in range(9):
        compression.pack(Encoded(b"", TEXT, b"", (0, 0, 0, 0, 1, 0)))
        with compression.packing(), compression.packing():
            await clock.advance(0.4 * WINDOW_S)
        await clock.advance(0.6 * WINDOW_S)
        with compression.sending(10**9):
            pass
    assert compression.level == FIRST


@pytest.mark.parametrize("level", [1, 19])
async def test_a_level_that_was_asked_for_is_kept(level):
    clock = ManualClock()
    compression = Compression(clock, level)
    assert await spend(clock, compression, TEXT, 5, sending=1, seconds=100) == level
    assert await spend(clock, compression, TEXT, 5, packing=1, sent_bytes=10**9) == level

"""The level follows what is waited for."""

import pytest

from novacron.core.clock import ManualClock
from novacron.migration.compression import LEVELS, SHY_S, WINDOW_S, Compression


async def spend(clock: ManualClock, compression: Compression, windows: int, **shares: float) -> int:
    """Windows of time in which the link and the packing were waited for in these shares; the level after them."""
    for _ in range(windows):
        await clock.advance(WINDOW_S)
        compression.waited(packing_s=shares.get("packing", 0) * WINDOW_S, sending_s=shares.get("sending", 0) * WINDOW_S)
    return compression.level


async def test_while_the_link_is_waited_for_the_level_rises_to_the_last():
    clock = ManualClock()
    compression = Compression(clock)
    assert compression.level == LEVELS[0]
    assert await spend(clock, compression, 1, sending=0.9) == LEVELS[1]
    assert await spend(clock, compression, 10, sending=0.9) == LEVELS[-1]


async def test_a_level_that_is_waited_for_is_left_and_not_tried_again_for_a_while():
    clock = ManualClock()
    compression = Compression(clock)
    await spend(clock, compression, 2, sending=0.9)
    assert await spend(clock, compression, 1, packing=0.6) == LEVELS[1]
    assert await spend(clock, compression, 3, sending=0.9) == LEVELS[1]
    await spend(clock, compression, round(SHY_S / WINDOW_S), sending=0.1)
    assert await spend(clock, compression, 1, sending=0.9) == LEVELS[2]


async def test_where_neither_is_waited_for_it_stays():
    clock = ManualClock()
    compression = Compression(clock)
    await spend(clock, compression, 2, sending=0.9)
    assert await spend(clock, compression, 5, sending=0.2, packing=0.1) == LEVELS[2]
    assert await spend(clock, compression, 9, packing=0.9) == LEVELS[0]


@pytest.mark.parametrize("level", [1, 19])
async def test_a_level_that_was_asked_for_is_kept(level):
    clock = ManualClock()
    compression = Compression(clock, level)
    assert await spend(clock, compression, 5, sending=0.9) == level
    assert await spend(clock, compression, 5, packing=0.9) == level

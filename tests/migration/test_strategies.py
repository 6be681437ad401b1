"""What happens to a guest that changes its memory faster than the link takes it."""

import asyncio

import msgspec
import pytest

from novacron.protocol.migration import MigrationPolicy
from support.pair import Pair, console, small_spec

pytestmark = pytest.mark.xdist_group("qemu-2")
BUSY = "console=ttyS0 quiet panic=-1 novacron.seed=7 novacron.hot=8192 novacron.cold=1024 novacron.rate=20000"
NARROW = MigrationPolicy(bandwidth_bytes_s=1_500_000, max_downtime_ms=30)
FIRST_WORD_S = 60


async def busy(make_driver, directory) -> tuple[Pair, object]:
    """A guest that dirties 80 MB/s."""
    pair, small = Pair(make_driver, directory), small_spec()
    boot = msgspec.structs.replace(small.boot, append=BUSY)
    return pair, await pair.boot(msgspec.structs.replace(small, boot=boot))


async def whole(machine) -> None:
    async with console(machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


@pytest.mark.soak
async def test_a_guest_that_outruns_the_link_is_stopped_when_the_policy_says_so(make_driver, short_dir):
    pair, machine = await busy(make_driver, short_dir)
    there = await pair.move(machine, "b", 2, policy=msgspec.structs.replace(NARROW, when_busy="stop"))
    await whole(there.machine)
    assert "it outran the link" in there.note
    assert there.summary.downtime_ms > NARROW.max_downtime_ms
    assert there.summary.rounds >= 3


async def test_a_cold_migration_moves_each_page_once_while_the_guest_stands_still(make_driver, short_dir):
    pair, machine = await busy(make_driver, short_dir)
    there = await pair.move(machine, "b", 2, policy=MigrationPolicy(strategy="cold"))
    await whole(there.machine)
    split = there.summary.split
    assert split.delta_bytes == 0  # nothing came twice
    assert there.summary.downtime_ms > there.summary.total_ms / 4


@pytest.mark.soak
async def test_a_guest_is_throttled_until_it_converges_when_the_policy_says_so(make_driver, short_dir):
    pair, machine = await busy(make_driver, short_dir)
    throttled = []

    async def look() -> None:
        while True:
            throttled.append((await machine.migration_status()).throttle_percent)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    policy = msgspec.structs.replace(NARROW, when_busy="throttle")
    try:
        there = await pair.move(machine, "b", 2, policy=policy)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await whole(there.machine)
    assert max(throttled) > 0


async def test_a_guest_that_was_stopped_runs_on_when_its_migration_is_given_up(make_driver, short_dir):
    pair, machine = await busy(make_driver, short_dir)
    async with machine.events() as events:
        moving = asyncio.create_task(
            pair.move(machine, "b", 2, policy=msgspec.structs.replace(NARROW, strategy="cold"))
        )
        async with asyncio.timeout(FIRST_WORD_S):
            async for event in events:
                if event.name == "STOP":
                    break
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
    await pair.take_back(machine)
    await whole(machine)

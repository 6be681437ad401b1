"""The guest runs at the destination while its memory follows: whole, over links that break, and back until then."""

import asyncio

import pytest

from novacron.core.errors import RemoteError
from novacron.hypervisor.driver import MachineState
from novacron.migration.destination import Destination
from novacron.migration.errors import MigrationError
from novacron.protocol.migration import MigrationPolicy
from support.pair import Pair, console, small_spec

pytestmark = pytest.mark.xdist_group("qemu-1")
POST_COPY = MigrationPolicy(strategy="postcopy", bandwidth_bytes_s=24_000_000)


async def whole(machine) -> None:
    async with console(machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def test_a_guest_that_outruns_its_link_arrives_whole(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    there = await pair.move(machine, "b", 2, policy=POST_COPY)
    await whole(there.machine)
    assert there.journal == ["ready", "commit", "run", "whole"]
    assert there.summary.verified
    assert (await there.machine.migration_status()).status == "completed"
    assert there.summary.ram_wire_bytes < machine.spec.memory_bytes
    await machine.quit()
    back = await pair.move(there.machine, "a", 3)  # by stream again, from a QEMU that was a post-copy's destination
    await whole(back.machine)


async def test_a_guest_at_rest_needs_nothing_to_follow(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    await machine.pause()
    there = await pair.move(machine, "b", 2, policy=POST_COPY)
    await whole(there.machine)


async def test_before_the_hand_over_the_guest_comes_back_also_when_the_destination_could_run_it(
    make_driver, short_dir, monkeypatch
):
    """All that the guest needs to run is over there; its source has not committed yet."""

    async def fails(_self) -> None:
        raise MigrationError("it says nothing more")

    monkeypatch.setattr(Destination, "_become_ready", fails)
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    with pytest.raises(RemoteError):
        await pair.move(machine, "b", 2, policy=POST_COPY)
    await pair.take_back(machine)
    await whole(machine)
    for target in await pair.drivers["b"].adopt(machine.vm_id):
        await target.kill()
    monkeypatch.undo()
    again = await pair.move(machine, "b", 3, policy=POST_COPY)
    await whole(again.machine)


async def test_a_source_that_was_left_alone_in_a_post_copy_goes_on(make_driver, short_dir):
    """Its connection broke after the guest could have run over there, and the other end has died."""
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    async with asyncio.timeout(120), machine.events() as events:
        moving = asyncio.create_task(pair.move(machine, "b", 2, policy=POST_COPY))
        async for event in events:
            if event.data.get("status") == "postcopy-active":
                break
    assert await machine.cut_migration()
    for target in await pair.drivers["b"].adopt(machine.vm_id):
        await target.kill()
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    assert await machine.state() is not MachineState.RUNNING
    await pair.take_back(machine)
    await whole(machine)

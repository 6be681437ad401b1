"""An attempt that breaks for a reason that passes is followed by another one, until its time is over."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from novacron.control.kinds import MIGRATIONS, VMS
from novacron.control.recovery import Failure, classify, next_way, wait_s
from novacron.core.clock import ManualClock
from novacron.core.errors import NovaCronError
from novacron.core.ids import MigrationId, new_id
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.errors import NoRoomError, QmpError
from novacron.hypervisor.memory.driver import MemoryDriver
from novacron.hypervisor.memory.machine import MemoryMachine
from novacron.migration import busy, destination, stall
from novacron.migration.errors import ConfigurationDiffersError, GuestBusyError, StalledError
from novacron.migration.handover import State
from novacron.migration.meter import Meter
from novacron.migration.ram import RamReceiver
from novacron.protocol.migration import IncomingOrder, MigrationPolicy
from novacron.wire.errors import ConnectionBrokenError
from support.clusters import in_memory, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)
SLOW = MigrationPolicy(bandwidth_bytes_s=1000, verify_window_ms=0)


async def broken(a, b):
    """A migration that broke because the destination's node went away in the middle of it."""
    move = await a.migrate("demo", "site-b", SLOW)
    await a.until(MIGRATIONS, move.id, lambda found: found.phase == "copy")
    await b.stop_node("node-1")
    return await a.ended(move.id)


async def test_a_migration_that_broke_is_tried_again_and_arrives(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        first = await broken(a, b)
        assert (first.outcome, first.failure, first.attempt) == ("failed", "link", 1)
        assert first.problem.next_command == f"novacron migration watch {first.retried_by}"
        await b.start_node("node-1")
        last = await a.ended(first.retried_by)
        while last.retried_by is not None:
            last = await a.ended(last.retried_by)
        assert last.outcome == "succeeded"
        assert last.attempt > 1
        await b.until(VMS, "demo", lambda found: found.state == "running")
        async with b.console("demo") as guest:
            found = await guest.check("there")
        assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def test_a_source_node_that_is_started_again_is_a_reason_that_passes(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", SLOW)
        await a.until(MIGRATIONS, move.id, lambda found: found.phase == "copy")
        await a.stop_node("node-1")
        await a.start_node("node-1")
        first = await a.ended(move.id)
        assert (first.outcome, first.failure, first.problem.code) == ("failed", "link", "node_restarted")
        assert "started again" in first.problem.cause
        assert first.retried_by is not None
        await a.controller.migrations.cancel(first.retried_by)
        await a.ended(first.retried_by)


async def test_an_attempt_that_waits_is_cancelled_and_no_other_follows(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        first = await broken(a, b)
        with pytest.raises(NovaCronError, match="has ended") as refused:
            await a.controller.migrations.cancel(first.id)
        assert refused.value.next_command == f"novacron migration cancel {first.retried_by}"
        await a.controller.migrations.cancel(first.retried_by)
        second = await a.ended(first.retried_by)
        assert (second.outcome, second.retry_of, second.retried_by) == ("cancelled", first.id, None)
        vm = await a.until(VMS, "demo", lambda found: found.migration_id is None)
        assert vm.state == "running"


async def test_a_controller_that_is_started_again_goes_on_with_the_next_attempt(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        first = await broken(a, b)
        await a.stop_controller()
        await b.start_node("node-1")
        await a.start_controller()
        last = await a.ended(first.retried_by)
        while last.retried_by is not None:
            last = await a.ended(last.retried_by)
        assert last.outcome == "succeeded"


async def test_what_has_come_survives_the_loss_of_the_hosts_memory(short_dir, monkeypatch):
    monkeypatch.setattr(destination, "CHECKPOINT_EVERY_S", 0.05)
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", msgspec.structs.replace(SLOW, retry_for_ms=0))
        await a.until(MIGRATIONS, move.id, lambda found: found.progress.round > 0)
        agent = b.agents["node-1"][0]
        images, checkpointed = agent._incoming._ram_images, asyncio.Event()
        write = images.checkpoint

        async def checkpoint(vm_id, ram, pieces):
            path = await write(vm_id, ram, pieces)
            if any(path.read_bytes()):
                checkpointed.set()
            return path

        monkeypatch.setattr(images, "checkpoint", checkpoint)
        monkeypatch.setattr(images, "keep_file", nothing)  # its power is cut: what was in memory has gone
        async with asyncio.timeout(30):
            await checkpointed.wait()
        image = agent._journal.facts(agent._journal.attempt(move.id).vm_id).cache_image
        await b.stop_node("node-1")
        await a.ended(move.id)
        kept = Path(image).read_bytes()
        await b.start_node("node-1")
        again = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        assert again.outcome == "succeeded"
        filled = sum(any(kept[at : at + PAGE_BYTES]) for at in range(0, len(kept), PAGE_BYTES))
        assert filled > 0
        assert again.summary.split.literal_bytes < filled * PAGE_BYTES  # what has changed since, not what was there
        async with asyncio.timeout(30):
            while Path(image).exists():  # noqa: ASYNC110 - the source may know first that it has arrived
                await asyncio.sleep(0.01)


async def nothing(*_):
    """A host's memory after its power was cut."""


async def test_an_attempt_that_begins_ends_the_one_that_its_source_gave_up(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", msgspec.structs.replace(SLOW, retry_for_ms=0))
        await a.until(MIGRATIONS, move.id, lambda found: found.phase == "copy")
        agent = b.agents["node-1"][0]
        older = agent._journal.attempt(move.id)
        order = IncomingOrder(
            migration_id=MigrationId(new_id("migration")),
            vm_id=older.vm_id,
            epoch=older.epoch + 1,
            spec=a.agents["node-1"][0]._driver.spec(older.vm_id),
            source_node=older.peer_node,
            source_address=older.peer_address,
        )
        await agent._incoming.prepare(None, order)
        assert agent._journal.attempt(move.id).state is State.LOST
        begun = agent._journal.attempt(order.migration_id)
        assert (begun.state, begun.disks_filled) == (State.PREPARED, True)  # what had come is there for it
        assert (await a.ended(move.id)).outcome == "failed"


async def test_a_migration_that_stands_still_is_named_given_up_and_tried_again(short_dir, monkeypatch):
    pages, held = RamReceiver.pages, []

    async def hang_once(receiver, body):
        if not held:
            held.append(receiver)
        if receiver is held[0]:
            await asyncio.Event().wait()  # a disk or a QEMU that hangs: the connections live
        await pages(receiver, body)

    monkeypatch.setattr(RamReceiver, "pages", hang_once)
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", msgspec.structs.replace(QUICK, stall_after_ms=1500))
        named = await a.until(MIGRATIONS, move.id, lambda found: found.progress.stalled_ms)
        assert named.progress.note.startswith("stalled: nothing has moved for")
        first = await a.ended(move.id)
        assert (first.outcome, first.failure, first.problem.code) == ("failed", "stall", "migration_stalled")
        assert (await a.ended(first.retried_by)).outcome == "succeeded"
        await b.until(VMS, "demo", lambda found: found.state == "running")


async def test_a_rate_that_was_asked_for_is_no_stall():
    clock, meter = ManualClock(), Meter(ManualClock(), phase="copy")
    channel = SimpleNamespace(held_back=True)
    watching = asyncio.create_task(stall.watch(meter, channel, clock, 10))
    await asyncio.sleep(0)
    for _ in range(100):
        await clock.advance(1)
    assert not watching.done()
    assert meter.stalled_s == 0
    channel.held_back = False
    for _ in range(8):
        await clock.advance(1)
    assert meter.progress().note == "stalled: nothing has moved for 8 s"
    meter.phase = "committed"  # from here on nobody gives anything up
    await clock.advance(1)
    assert meter.stalled_s == 0
    meter.phase = "switchover"
    await clock.advance(100)
    with pytest.raises(StalledError, match="in phase switchover"):
        await watching


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ConnectionBrokenError, Failure.LINK),
        (StalledError, Failure.STALL),
        (NoRoomError, Failure.ROOM),
        (QmpError, Failure.IO),
        (ConfigurationDiffersError, Failure.VERSION),
        (NovaCronError, Failure.OTHER),
    ],
)
def test_failures_have_classes(error, failure):
    assert classify(error.code) is failure


def asked(**more):
    return MigrationPolicy(**more)


@pytest.mark.parametrize(
    ("failures", "policy", "wanted"),
    [
        ([Failure.LINK], asked(), asked()),
        ([Failure.LINK, Failure.STALL], asked(), asked(streams=1)),
        ([Failure.LINK] * 3, asked(streams=8), asked(streams=1)),
        ([Failure.LINK] * 4, asked(streams=8), asked(streams=8)),
        ([Failure.LINK] * 2, asked(streams=1), asked(streams=0)),
        ([Failure.BUSY], asked(busy_then="stop"), asked(busy_then="stop", when_busy="stop")),
        ([Failure.BUSY, Failure.LINK], asked(), asked(when_busy="throttle")),
        ([Failure.BUSY], asked(busy_then="postcopy"), asked(busy_then="postcopy", strategy="postcopy")),
        ([Failure.BUSY, Failure.LINK], asked(when_busy="postcopy"), asked(when_busy="postcopy", strategy="postcopy")),
        ([Failure.NODE], asked(), asked()),
        ([Failure.PEER] * 5, asked(), asked()),
        ([Failure.LINK, Failure.IO], asked(), asked()),
    ],
)
def test_an_attempt_goes_another_way_where_that_may_help_and_says_why(failures, policy, wanted):
    way = next_way(failures, policy)
    assert way.policy == wanted
    assert bool(way.differs) == (wanted != policy or Failure.NODE in failures)


def test_what_a_person_must_change_is_not_tried_again():
    for failures in ([Failure.ROOM], [Failure.IO] * 2, [Failure.NODE] * 4, [Failure.BUSY] * 2, [Failure.OTHER]):
        assert next_way(failures, MigrationPolicy()) is None
    assert next_way([Failure.BUSY], MigrationPolicy(busy_then="fail")) is None


async def test_a_guest_that_outruns_the_link_is_waited_for_as_long_as_its_policy_says():
    clock, meter = ManualClock(), Meter(ManualClock(), phase="copy")
    watching = asyncio.create_task(busy.watch(meter, MigrationPolicy(busy_after_ms=10_000), clock))
    patient = asyncio.create_task(busy.watch(meter, MigrationPolicy(), clock))
    await asyncio.sleep(0)
    for converging in (None, False, True, False):  # a calmer moment counts from the beginning again
        meter.converging = converging
        await clock.advance(9)
    assert not watching.done()
    await clock.advance(2)
    with pytest.raises(GuestBusyError, match="for 10 s"):
        await watching
    assert not patient.done()
    patient.cancel()


async def test_a_guest_that_may_go_ahead_of_its_memory_is_not_waited_for_and_has_no_link_to_outrun_then():
    clock, meter = ManualClock(), Meter(ManualClock(), phase="copy")
    meter.converging = False
    ahead = MigrationPolicy(when_busy="postcopy", strategy="postcopy", busy_after_ms=1)
    gone = asyncio.create_task(busy.watch(meter, ahead, clock))
    watching = asyncio.create_task(busy.watch(meter, MigrationPolicy(when_busy="postcopy"), clock))
    await asyncio.sleep(0)
    await clock.advance(9)
    with pytest.raises(GuestBusyError):
        await watching
    assert not gone.done()
    gone.cancel()


async def test_the_attempt_after_one_that_was_too_busy_does_as_its_policy_says(short_dir, monkeypatch):
    plan, seen = Meter.plan, []

    def outrun(meter, remaining_bytes):
        plan(meter, remaining_bytes)
        meter.converging = bool(seen)

    async def throttled(_machine, *, throttle=False, post_copy=False):
        assert not post_copy
        if throttle:
            seen.append(throttle)

    monkeypatch.setattr(Meter, "plan", outrun)
    monkeypatch.setattr(MemoryMachine, "prepare_outgoing", throttled)
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        slow = msgspec.structs.replace(SLOW, bandwidth_bytes_s=20, busy_after_ms=1)
        first = await a.ended((await a.migrate("demo", "site-b", slow)).id)
        assert (first.outcome, first.failure, first.differs) == ("failed", "busy", "")
        second = (await a.database.read(lambda tx: MIGRATIONS.get(tx, first.retried_by))).value
        assert second.differs == "the guest outran the link for too long: --when-busy throttle"
        async with asyncio.timeout(30):
            while not seen:  # noqa: ASYNC110 - the driver is told
                await asyncio.sleep(0.01)
        await a.controller.migrations.cancel(second.id)
        await a.ended(second.id)


async def test_where_the_chosen_node_has_no_room_after_all_the_next_attempt_goes_to_another(short_dir, monkeypatch):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2")) as (a, b):
        await a.boot_small()
        full = []

        async def reserve(driver, path, size_bytes):
            if not full or full[0] is driver:
                full.append(driver)
                raise NoRoomError("somebody was faster")
            await reserve_ram(driver, path, size_bytes)

        reserve_ram = MemoryDriver.reserve_ram
        monkeypatch.setattr(MemoryDriver, "reserve_ram", reserve)
        first = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        assert (first.failure, first.problem.code) == ("node", "node_refused")
        second = await a.ended(first.retried_by)
        assert (second.outcome, second.attempt) == ("succeeded", 2)
        assert second.differs.startswith("to another node")
        nodes = [
            (await b.database.read(lambda tx, m=m: MIGRATIONS.get(tx, m.id))).value.target_node for m in (first, second)
        ]
        assert sorted(nodes) == ["node-1", "node-2"]


async def test_a_node_that_was_named_is_not_replaced_by_another(short_dir, monkeypatch):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2")) as (a, _):
        await a.boot_small()

        async def reserve(*_):
            raise NoRoomError("somebody was faster")

        monkeypatch.setattr(MemoryDriver, "reserve_ram", reserve)
        ended = await a.ended((await a.migrate("demo", "site-b/node-2", QUICK)).id)
        assert (ended.failure, ended.retried_by) == ("room", None)


def test_waits_double_up_to_a_longest_one():
    assert [wait_s(Failure.LINK, attempt) for attempt in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]
    assert [wait_s(Failure.IO, attempt) for attempt in (1, 2)] == [5, None]
    assert wait_s(Failure.ROOM, 1) is None

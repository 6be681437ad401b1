"""Migrations and batches that begin in certain hours only, on drivers in memory."""

from datetime import UTC, datetime

import msgspec
import pytest

from novacron.control.kinds import BATCHES, MIGRATIONS, VMS
from novacron.core.clock import SystemClock
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.rest import BatchRequest, DrainRequest
from novacron.protocol.time_window import TimeWindow
from support.batches import QUICK, ended, history, refusal
from support.clusters import in_memory, two_clusters

MINUTE_S = 60
SOON_S = 2 * MINUTE_S
LONG = MigrationPolicy(bandwidth_bytes_s=1000, verify_window_ms=0)  # expected to take up to three and a half minutes


class AheadClock(SystemClock):
    """The machine's clock, and so much more."""

    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


@pytest.fixture
def clock(monkeypatch):
    """At the beginning of a minute."""
    ahead = AheadClock()
    ahead.ahead_s = -ahead.now() % MINUTE_S
    monkeypatch.setattr("support.clusters.CLOCK", ahead)
    return ahead


def window(clock, opens_in_min: int, closes_in_min: int) -> TimeWindow:
    times = (datetime.fromtimestamp(clock.now() + MINUTE_S * ahead, UTC) for ahead in (opens_in_min, closes_in_min))
    return TimeWindow(*(f"{time:%H:%M}" for time in times))


def within(hours: TimeWindow, policy: MigrationPolicy = QUICK) -> MigrationPolicy:
    return msgspec.structs.replace(policy, window=hours)


async def test_a_migration_waits_for_its_window_though_the_controller_is_started_again(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", within(window(clock, 2, 180)))
        assert (move.phase, move.outcome) == ("waiting", "")
        assert 0 < move.begins_at - clock.now() <= SOON_S
        assert move.waits_for.startswith("its window is ")
        await a.stop_controller()
        await a.start_controller()
        vm = (await a.database.read(lambda tx: VMS.get(tx, "demo"))).value
        assert (vm.state, vm.migration_id) == ("running", move.id)
        clock.ahead_s += SOON_S
        done = await a.ended(move.id)
        assert (done.outcome, done.waits_for) == ("succeeded", "")
        assert done.predicted is not None
        await b.until(VMS, "demo", lambda found: found.state == "running")


async def test_a_migration_that_waits_for_its_window_is_cancelled(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        move = await a.migrate("demo", "site-b", within(window(clock, 120, 180)))
        await a.controller.migrations.cancel(move.id)
        assert (await a.ended(move.id)).outcome == "cancelled"
        vm = await a.until(VMS, "demo", lambda found: found.migration_id is None)
        assert vm.state == "running"


async def test_what_is_not_through_before_its_window_closes_waits_for_the_next(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        hours = window(clock, -20 * 60, 2)
        move = await a.migrate("demo", "site-b", within(hours, LONG))
        assert move.phase == "prepare"
        waits = await a.until(MIGRATIONS, move.id, lambda found: found.phase == "waiting")
        assert "and its window closes in" in waits.waits_for
        assert 3 * 3600 < waits.begins_at - clock.now() <= 4 * 3600
        assert waits.predicted.total_ms.high > 1000 * SOON_S
        await a.controller.migrations.cancel(move.id)
        assert (await a.ended(move.id)).outcome == "cancelled"
        forced = await a.migrate("demo", "site-b", within(msgspec.structs.replace(hours, overrun=True), LONG))
        await a.until(MIGRATIONS, forced.id, lambda found: found.phase == "copy")
        await a.controller.migrations.cancel(forced.id)
        await a.ended(forced.id)


async def test_what_fits_into_no_window_fails_and_says_why(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        move = await a.ended((await a.migrate("demo", "site-b", within(window(clock, -1, 2), LONG))).id)
        assert (move.outcome, move.problem.code, move.retried_by) == ("failed", "window_short", None)
        assert "is open for 3 min" in move.problem.cause
        assert "--overrun" in move.problem.next_command


async def test_the_way_back_of_a_guest_waits_for_no_window(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        policy = within(window(clock, -5, 5), MigrationPolicy(verify_window_ms=60_000))
        move = await a.ended((await a.migrate("demo", "site-b", policy)).id)
        assert (move.outcome, move.phase) == ("succeeded", "window")
        await a.controller.migrations.rollback(move.id)
        await a.until(MIGRATIONS, move.id, lambda found: found.outcome == "rolled_back")


async def test_a_window_that_cannot_be_is_refused_wherever_it_is_given(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        policy, control = within(TimeWindow("05:00", "05:00", "Mars")), a.controller
        for asked in (
            a.migrate("demo", "site-b", policy),
            control.batches.start(BatchRequest("site-b", ("demo",), policy=policy)),
            control.maintenance.drain("node-1", DrainRequest("site-b", policy=policy)),
        ):
            assert (await refusal(asked)).cause == "there is no time zone 'Mars': write it like Europe/Berlin"
        assert await a.database.read(lambda tx: [*MIGRATIONS.every(tx), *BATCHES.every(tx)]) == []


async def test_a_batch_begins_nothing_before_its_window_opens(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        for name in ("one", "two"):
            await a.boot_small(name)
        policy = within(window(clock, 2, 180))
        batch = await a.controller.batches.start(BatchRequest("site-b", ("one", "two"), policy=policy))
        assert 0 < batch.begins_at - clock.now() <= SOON_S
        await a.stop_controller()
        await a.start_controller()
        assert await history(a) == []
        clock.ahead_s += SOON_S
        done = await ended(a, batch.id)
        assert (done.outcome, done.begins_at) == ("succeeded", 0)
        assert all(move.predicted is not None for move in done.moves)
        for name in ("one", "two"):
            await b.until(VMS, name, lambda found: found.state == "running")


async def test_a_move_that_would_not_be_through_is_put_off_and_keeps_no_other_batch_waiting(short_dir, clock):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        for name in ("slow", "other"):
            await a.boot_small(name)
        urgent = msgspec.structs.replace(within(window(clock, -20 * 60, 2), LONG), priority=5)
        slow = await a.controller.batches.start(BatchRequest("site-b", ("slow",), policy=urgent))
        waits = await a.until(BATCHES, slow.id, lambda found: found.moves[0].problem is not None)
        assert (waits.moves[0].problem.code, waits.moves[0].migration_id) == ("window_next", None)
        other = await a.controller.batches.start(BatchRequest("site-b", ("other",), policy=QUICK))
        assert (await ended(a, other.id)).outcome == "succeeded"
        await a.controller.batches.cancel(slow.id)
        assert (await ended(a, slow.id)).outcome == "cancelled"
        tight = within(window(clock, -1, 2), LONG)
        short = await a.controller.batches.start(BatchRequest("site-b", ("slow",), policy=tight))
        failed = (await ended(a, short.id)).moves[0]
        assert (failed.outcome, failed.problem.code) == ("failed", "window_short")

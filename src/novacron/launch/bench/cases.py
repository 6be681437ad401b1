"""What NovaCron has to show: the way there and back, a second VM of the same image, a move after the link was cut.

Each case has clusters of its own, which know nothing yet.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs

from novacron.launch.bench.attempt import attempt
from novacron.launch.bench.errors import BenchError, GaveUpError
from novacron.launch.bench.footprint import footprint
from novacron.launch.bench.run import Against, Run
from novacron.launch.demo.errors import MoveFailedError
from novacron.launch.demo.journey import POLICY, VM, Trip, bring_boot_files, bring_images, join, settle_in, travel
from novacron.launch.demo.site import DemoSite, both_sites
from novacron.launch.guest.build import GuestFiles
from novacron.launch.guest.workloads import kernel_arguments
from novacron.launch.lab.lab import Lab, crossed
from novacron.protocol.migration import Strategy
from novacron.protocol.resources import Migration

OURS: Final = "novacron"
BACK: Final = "novacron, the way back"
SECOND: Final = "novacron, a second VM"
RESUMED: Final = "novacron, after a cut"
ONE_ATTEMPT: Final = structs.replace(POLICY, retry_for_ms=0)  # a figure is of one move
OUTAGE_S: Final = 10.0  # longer than a channel's heartbeat lives: the attempt breaks off
LOOK_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Trial:
    """What every contender is given."""

    lab: Lab
    guest: GuestFiles
    workload: str
    seed: int
    give_up_s: float
    strategy: Strategy = "stream"  # of ours
    level: int = 1  # of ours: 0 leaves it to link and content


async def there_and_back(trial: Trial) -> list[Run]:
    """The guest moves, and returns at once."""
    async with _guest_at_work(trial) as (a, b):
        there = await attempt(trial.workload, OURS, _move(trial, OURS, a, b))
        if there.outcome != "moved":
            return [there]
        against = Against("the way there", there.link_bytes)
        return [there, await attempt(trial.workload, BACK, _move(trial, BACK, b, a, against=against))]


async def second_vm(trial: Trial, there: Run) -> Run:
    """Another VM of the same image, its memory its own, follows one that has moved; that one stands still."""
    async with _guest_at_work(trial) as (a, b):
        await _travel(trial, a, b)
        await settle_in(a, kernel_arguments(trial.workload, trial.seed + 1), vm="second")
        async with b.paused_guests():
            against = Against("the first VM", there.link_bytes)
            return await _move(trial, SECOND, a, b, vm="second", against=against)


async def resume(trial: Trial, there: Run) -> Run:
    """The link is cut when half of the bytes have crossed, and comes back; the migration is started again."""
    async with _guest_at_work(trial) as (a, b):
        crossed_bytes = await _cut_in_the_middle(trial, a, b, there.link_bytes // 2)
        against = Against("what was missing", there.link_bytes - crossed_bytes)
        return await _move(trial, RESUMED, a, b, against=against)


CASES: Final[Mapping[str, tuple[str, Callable[[Trial, Run], Awaitable[Run]]]]] = {
    "second-vm": (SECOND, second_vm),
    "resume": (RESUMED, resume),
}


@asynccontextmanager
async def _guest_at_work(trial: Trial) -> AsyncIterator[tuple[DemoSite, DemoSite]]:
    """Two new clusters that know each other; the guest works at the first.

    Both have its kernel, as stock QEMU has it at both ends; its disk only the first one has.
    """
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-"))
    try:
        async with both_sites(trial.lab, directory) as (a, b):
            await join(a, b)
            await bring_images(a, trial.guest)
            await bring_boot_files(b, trial.guest)
            await settle_in(a, kernel_arguments(trial.workload, trial.seed))
            yield a, b
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)


async def _cut_in_the_middle(trial: Trial, a: DemoSite, b: DemoSite, cut_at: int) -> int:
    """An attempt that breaks off when ``cut_at`` bytes have crossed: how many had. The link is back afterwards."""
    before = crossed(trial.lab)
    moving = asyncio.create_task(_travel(trial, a, b))
    while crossed(trial.lab) - before < cut_at and not moving.done():  # noqa: ASYNC110 - other processes send
        await asyncio.sleep(LOOK_EVERY_S)
    crossed_bytes = crossed(trial.lab) - before
    async with trial.lab.cut():
        await asyncio.sleep(OUTAGE_S)
    try:
        await moving
    except MoveFailedError:
        return crossed_bytes
    raise BenchError("the move was over although the link was cut")


async def _move(
    trial: Trial, name: str, source: DemoSite, target: DemoSite, *, vm: str = VM, against: Against | None = None
) -> Run:
    before = crossed(trial.lab)
    async with footprint(source.node.pid, target.node.pid) as held:
        trip = await _travel(trial, source, target, vm=vm)
    return Run(
        trial.workload,
        name,
        "moved",
        total_ms=trip.summary.total_ms,
        downtime_ms=trip.summary.downtime_ms,
        link_bytes=crossed(trial.lab) - before,
        errors=trip.errors + trip.lost + trip.doubled,
        against=against,
        node_bytes=held.peak_bytes,
    )


async def _travel(trial: Trial, source: DemoSite, target: DemoSite, *, vm: str = VM) -> Trip:
    """Raises GaveUpError when it takes too long: what was begun ends with its clusters."""
    ends = time.monotonic() + trial.give_up_s

    def watch(_: Migration) -> None:
        if time.monotonic() > ends:
            raise GaveUpError(f"the guest was not there after {trial.give_up_s:.0f} s")

    policy = structs.replace(ONE_ATTEMPT, strategy=trial.strategy, compression_level=trial.level)
    return await travel(source, target, policy, watch, vm=vm)

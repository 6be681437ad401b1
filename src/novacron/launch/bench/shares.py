"""``novacron bench shares``: guests that move at once over one link, and what each of them gets of it.

They are small and hardly work, so that the link is what they wait for; each verifies itself at the other side. What
counts is the time in which all of them had something to send.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from novacron.cli.kinds import MIGRATIONS, at
from novacron.cli.measures import DURATION, RATE
from novacron.cli.output import table
from novacron.cli.texts import span
from novacron.core.settings import default_data_dir
from novacron.core.units import MIB, format_rate
from novacron.launch.bench.fairness import Fairness, judge, mover
from novacron.launch.demo.journey import POLICY, arrive, bring_boot_files, bring_images, follow, join, settle_in
from novacron.launch.demo.site import SITES, DemoSite, both_sites
from novacron.launch.guest.build import GuestFiles, build
from novacron.launch.lab.lab import Lab, open_lab
from novacron.launch.lab.link import Link
from novacron.protocol.resources import Migration, MigrationSeries, ProgressPoint
from novacron.protocol.rest import MigrateRequest
from novacron.wire.shares import STEPS_TO_DOUBLE, weight_of

MEMORY_BYTES: Final = 128 * MIB
WORKLOAD: Final = (
    "console=ttyS0 quiet panic=-1 novacron.hot=512 novacron.cold=14336 novacron.rate=20 novacron.records=1"
)
CASES: Final = {"alike": 0, "one of double weight": STEPS_TO_DOUBLE}  # priority of the first; the others have 0


class Run(Struct, frozen=True):
    """All of them, once."""

    case: str
    fairness: Fairness
    total_ms: int  # until the last of them was there
    errors: int  # that the guests have found


@click.command("shares")
@click.option("--vms", type=click.IntRange(2, 64), default=8, show_default=True, help="How many move at once.")
@click.option("--link", type=RATE, default="200Mbit/s", show_default=True, help="Rate of the link.")
@click.option("--delay", type=DURATION, default="20ms", show_default=True, help="Of the link, one way.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Of each case; medians count.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the guests' memory.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, vms: int, link: int, delay: int, runs: int, seed: int, output: str) -> None:
    """Move many guests at once, all alike, then one of them with double weight."""
    lab = Link(rate_bytes_s=link, delay_ms=delay, seed=seed)
    found, note = asyncio.run(_measure(lab, vms, runs, click.echo if output == "table" else _say_nothing))
    if output == "json":
        document: dict[str, Any] = {"link": lab, "lab": note, "runs": found}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{vms} guests over {format_rate(link)}, {note}; medians of {runs}")
    table(
        [
            "",
            "runs",
            "time",
            "all at once for",
            "at",
            "least of fair",
            "most of fair",
            "farthest off",
            "Jain",
            "errors",
        ],
        [_row(case, [run for run in found if run.case == case]) for case in CASES],
    )


async def _measure(link: Link, vms: int, runs: int, tell: Callable[[str], None]) -> tuple[list[Run], str]:
    guest = await asyncio.to_thread(build, default_data_dir("guest"))
    found: list[Run] = []
    async with open_lab(link, SITES) as lab:
        for number in range(runs):
            for case in CASES:
                tell(f"{case}, run {number + 1} of {runs}")
                found.append(await _run(lab, guest, case, vms))
        return found, lab.note


async def _run(lab: Lab, guest: GuestFiles, case: str, count: int) -> Run:
    """New clusters that know nothing yet; the guests are made, move, and verify themselves."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-"))
    try:
        async with both_sites(lab, directory) as (a, b):
            await join(a, b)
            await bring_images(a, guest)
            await bring_boot_files(b, guest)
            names = [f"guest-{number + 1}" for number in range(count)]
            for number, name in enumerate(names):
                arguments = f"{WORKLOAD} novacron.seed={lab.link.seed + number}"
                await settle_in(a, arguments, vm=name, memory_bytes=MEMORY_BYTES)
            return await _move_at_once(a, b, names, case)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)


async def _move_at_once(a: DemoSite, b: DemoSite, names: Sequence[str], case: str) -> Run:
    priorities = [CASES[case], *(0 for _ in names[1:])]
    begun = [
        await asyncio.to_thread(_begin, a, b, name, priority) for name, priority in zip(names, priorities, strict=True)
    ]
    ended = [await asyncio.to_thread(follow, a.client, migration.id, lambda _: None) for migration in begun]
    trips = [await arrive(a, b, migration, vm=migration.vm_name) for migration in ended]
    movers = [
        mover(name, weight_of(priority), await asyncio.to_thread(_series, a, migration))
        for name, priority, migration in zip(names, priorities, ended, strict=True)
    ]
    return Run(
        case,
        judge(movers),
        total_ms=max(trip.summary.total_ms for trip in trips),
        errors=sum(trip.errors + trip.lost + trip.doubled for trip in trips),
    )


def _begin(a: DemoSite, b: DemoSite, vm: str, priority: int) -> Migration:
    policy = msgspec.structs.replace(POLICY, retry_for_ms=0, priority=priority)
    return a.client.post(MIGRATIONS.path, Migration, MigrateRequest(vm, b.name, policy)).value


def _series(a: DemoSite, migration: Migration) -> tuple[ProgressPoint, ...]:
    return a.client.read(at(MIGRATIONS, migration.id, "series"), MigrationSeries).value.items


def _row(case: str, runs: Sequence[Run]) -> list[str]:
    fair = [run.fairness for run in runs]
    return [
        case,
        str(len(runs)),
        span(median(run.total_ms for run in runs)),
        span(median(one.seconds for one in fair) * 1000),
        format_rate(median(one.rate_bytes_s for one in fair)),
        f"{min(part.of_fair for one in fair for part in one.parts):.3f}",
        f"{max(part.of_fair for one in fair for part in one.parts):.3f}",
        f"{median(one.deviation for one in fair):.1%}",
        f"{median(one.jain for one in fair):.4f}",
        str(sum(run.errors for run in runs)),
    ]


def _say_nothing(_: str) -> None:
    """For programs: they read the end."""

"""``novacron bench prediction``: what plans say of migrations, beside what these come to.

Each link has clusters of its own, that have seen no other, and a guest of its own, which moves there and back: planned
first, then moved by that plan, and verified by itself.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from novacron.cli.kinds import MIGRATIONS, PLANS, at
from novacron.cli.output import table
from novacron.core.settings import default_data_dir
from novacron.launch.bench.accuracy import Accuracy, Foretold, by_plan, early_error, judge, judge_early
from novacron.launch.bench.errors import BenchError
from novacron.launch.bench.variety import Setting, draw
from novacron.launch.demo.journey import POLICY, VM, arrive, bring_boot_files, bring_images, follow, join, settle_in
from novacron.launch.demo.site import SITES, DemoSite, both_sites
from novacron.launch.guest.build import GuestFiles, build
from novacron.launch.lab.lab import Lab, open_lab
from novacron.protocol.resources import Migration, MigrationSeries, Plan
from novacron.protocol.rest import MigrateRequest, PlanRequest

MOVES: Final = 5  # of each guest


class Run(Struct, frozen=True):
    """One migration."""

    setting: Setting
    move: int  # 0: the first one there
    foretold: list[Foretold]
    early_error: float | None


@click.command("prediction")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Migrations.")
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of links and guests.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, runs: int, seed: int, output: str) -> None:
    """Plan migrations of guests that differ over links that differ, do them, and compare.

    Each one is told on stderr.
    """
    found, note = asyncio.run(_measure(runs, seed, lambda line: click.echo(line, err=True)))
    accuracies = accuracy(found)
    if output == "json":
        document: dict[str, Any] = {"seed": seed, "lab": note, "runs": found, "accuracy": accuracies}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{len(found)} migrations, seed {seed}, {note}")
    table(
        ["", "migrations", "median error", "P95 of it", "inside the interval", "its width"], list(map(_row, accuracies))
    )


def accuracy(runs: Sequence[Run]) -> list[Accuracy]:
    """Of each figure; raises BenchError when nothing was foretold."""
    foretold = [one for run in runs for one in run.foretold]
    if not foretold:
        raise BenchError("no plan has foretold anything")
    early = [run.early_error for run in runs if run.early_error is not None]
    return [*judge(foretold), *([judge_early(early)] if early else [])]


async def _measure(runs: int, seed: int, tell: Callable[[str], None]) -> tuple[list[Run], str]:
    guest = await asyncio.to_thread(build, default_data_dir("guest"))
    found: list[Run] = []
    note = ""
    while len(found) < runs:
        setting = draw(seed, len(found) // MOVES)
        async with open_lab(setting.link, SITES) as lab:
            note = lab.note
            found += await _there_and_back(lab, guest, setting, min(MOVES, runs - len(found)), tell)
    return found, note


async def _there_and_back(
    lab: Lab, guest: GuestFiles, setting: Setting, moves: int, tell: Callable[[str], None]
) -> list[Run]:
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-"))
    try:
        async with both_sites(lab, directory) as (a, b):
            await join(a, b)
            await bring_images(a, guest)
            await bring_boot_files(b, guest)
            await settle_in(a, setting.arguments, memory_bytes=setting.memory_bytes)
            return [await _move(setting, number, *((b, a) if number % 2 else (a, b)), tell) for number in range(moves)]
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)


async def _move(setting: Setting, number: int, source: DemoSite, target: DemoSite, tell: Callable[[str], None]) -> Run:
    migration = await asyncio.to_thread(_by_plan, source, target)
    await arrive(source, target, migration)
    series = await asyncio.to_thread(source.client.read, at(MIGRATIONS, migration.id, "series"), MigrationSeries)
    run = Run(setting, number, by_plan(migration), early_error(migration, series.value.items))
    tell(_line(run))
    return run


def _by_plan(source: DemoSite, target: DemoSite) -> Migration:
    plan = source.client.post(PLANS.path, Plan, PlanRequest(VM, target.name, POLICY)).value
    request = MigrateRequest(VM, target.name, plan_id=plan.id)
    begun = source.client.post(MIGRATIONS.path, Migration, request).value
    return follow(source.client, begun.id, lambda _: None)


def _line(run: Run) -> str:
    said = ", ".join(
        f"{one.figure} {one.came:.0f} ({one.said.low:.0f} to {one.said.high:.0f}{'' if one.inside else ': outside'})"
        for one in run.foretold
    )
    link = run.setting.link
    return f"{link.rate_bytes_s * 8 / 1e6:.0f} Mbit/s, {link.delay_ms} ms, move {run.move + 1}: {said}"


def _row(one: Accuracy) -> list[str]:
    return [
        one.figure,
        str(one.count),
        f"{one.median_error:.0%}",
        f"{one.p95_error:.0%}",
        "" if one.inside is None else f"{one.inside:.0%}",
        "" if one.width is None else f"{one.width:.2f} x",
    ]

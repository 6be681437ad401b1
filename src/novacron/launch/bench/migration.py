"""``novacron bench migration``: the demo guest over the demo's link, moved by NovaCron and by stock QEMU.

Memory and disk on both sides, the same guest, workload and seed, one after the other in the same lab, a fresh guest for
each. Bytes are those that the link counts, both directions together: for NovaCron its own control traffic and TLS too.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from novacron.cli.measures import DURATION, RATE
from novacron.cli.output import table
from novacron.cli.texts import span
from novacron.core.settings import default_data_dir
from novacron.core.units import format_rate, format_size
from novacron.launch.demo.journey import DOWNTIME_MS, MEMORY_BYTES, POLICY, join, kernel_arguments, settle_in, travel
from novacron.launch.demo.site import DemoSite
from novacron.launch.guest.build import GuestFiles, build
from novacron.launch.lab.lab import Lab, crossed, open_lab
from novacron.launch.lab.link import Link
from novacron.launch.stock.contender import MULTIFD_ZSTD, PLAIN, Contender
from novacron.launch.stock.race import Entry, race

SITES: Final = ("site-a", "site-b")
OURS: Final = "novacron"
BACK: Final = "novacron, the way back"
PEER: Final = MULTIFD_ZSTD.name


class Run(Struct, frozen=True):
    """One move."""

    contender: str
    converged: bool
    total_ms: int
    downtime_ms: int
    link_bytes: int
    errors: int  # that the guest has found


class Standing(Struct, frozen=True):
    """A contender's medians, and its ratios to stock multifd+zstd (None where one of the two did not converge)."""

    contender: str
    runs: int
    converged: bool
    total_ms: float
    downtime_ms: float
    link_bytes: float
    time_ratio: float | None
    bytes_ratio: float | None
    errors: int


@click.command("migration")
@click.option("--link", type=RATE, default="200Mbit/s", show_default=True, help="Rate of the link.")
@click.option("--delay", type=DURATION, default="20ms", show_default=True, help="Of the link, one way.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of each contender; medians count.")
@click.option("--give-up", type=DURATION, default="60s", show_default=True, help="When a peer's RAM does not converge.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the workload.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, link: int, delay: int, runs: int, give_up: int, seed: int, output: str) -> None:
    """Move the demo guest with NovaCron and with stock QEMU, and compare."""
    lab = Link(rate_bytes_s=link, delay_ms=delay, seed=seed)
    standings, note = asyncio.run(_measure(lab, runs, give_up / 1000, seed))
    if output == "json":
        document: dict[str, Any] = {"link": lab, "lab": note, "standings": standings}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{format_rate(link)}, {note}; medians of {runs}; ratios to {PEER}")
    table(
        ["", "time", "x", "on the link", "x", "downtime", "errors"],
        [
            [
                one.contender,
                span(one.total_ms) if one.converged else f"does not converge in {span(one.total_ms)}",
                _ratio(one.time_ratio),
                format_size(one.link_bytes),
                _ratio(one.bytes_ratio),
                span(one.downtime_ms) if one.converged else "",
                str(one.errors),
            ]
            for one in standings
        ],
    )


async def _measure(link: Link, runs: int, give_up_s: float, seed: int) -> tuple[list[Standing], str]:
    guest = await asyncio.to_thread(build, default_data_dir("guest"))
    entry = Entry(guest, MEMORY_BYTES, kernel_arguments(seed), DOWNTIME_MS, give_up_s)
    found: list[Run] = []
    async with open_lab(link, SITES) as lab:
        for _ in range(runs):
            found += await _ours(lab, guest, seed)
            found.append(await _stock(lab, MULTIFD_ZSTD, entry))
        found.append(await _stock(lab, PLAIN, entry))  # once: it runs until it is given up
        return _standings(found), lab.note


async def _ours(lab: Lab, guest: GuestFiles, seed: int) -> list[Run]:
    """Two new clusters, there and back."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-"))
    try:
        async with (
            DemoSite.running(SITES[0], lab, directory) as a,
            DemoSite.running(SITES[1], lab, directory) as b,
        ):
            await join(a, b)
            await settle_in(a, guest, kernel_arguments(seed))
            return [await _trip(lab, OURS, a, b), await _trip(lab, BACK, b, a)]
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)


async def _trip(lab: Lab, name: str, source: DemoSite, target: DemoSite) -> Run:
    before = crossed(lab)
    trip = await travel(source, target, POLICY, lambda _: None)
    return Run(
        name,
        converged=True,
        total_ms=trip.summary.total_ms,
        downtime_ms=trip.summary.downtime_ms,
        link_bytes=crossed(lab) - before,
        errors=trip.errors + trip.lost + trip.doubled,
    )


async def _stock(lab: Lab, contender: Contender, entry: Entry) -> Run:
    result = await race(lab, SITES, contender, entry)
    figures = result.figures
    return Run(
        contender.name,
        converged=figures.converged,
        total_ms=figures.total_ms,
        downtime_ms=figures.downtime_ms,
        link_bytes=result.link_bytes,
        errors=result.errors,
    )


def _standings(found: Sequence[Run]) -> list[Standing]:
    """Medians by contender, in the order of their first runs."""
    by_name: dict[str, list[Run]] = {}
    for run in found:
        by_name.setdefault(run.contender, []).append(run)
    peer = by_name[PEER]
    return [_standing(name, runs, peer) for name, runs in by_name.items()]


def _standing(name: str, runs: Sequence[Run], peer: Sequence[Run]) -> Standing:
    comparable = all(run.converged for run in (*runs, *peer))
    total_ms, link_bytes = median(run.total_ms for run in runs), median(run.link_bytes for run in runs)
    return Standing(
        contender=name,
        runs=len(runs),
        converged=all(run.converged for run in runs),
        total_ms=total_ms,
        downtime_ms=median(run.downtime_ms for run in runs),
        link_bytes=link_bytes,
        time_ratio=total_ms / median(run.total_ms for run in peer) if comparable else None,
        bytes_ratio=link_bytes / median(run.link_bytes for run in peer) if comparable else None,
        errors=sum(run.errors for run in runs),
    )


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"

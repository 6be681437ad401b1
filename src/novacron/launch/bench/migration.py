"""``novacron bench migration``: the demo guest over the demo's link, moved by NovaCron and by stock QEMU.

Memory and disk on both sides, the same guest, workload and seed, one after the other in the same lab, a fresh guest for
each. Bytes are those that the link counts, both directions together: for NovaCron its own control traffic and TLS too.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import click
import msgspec

from novacron.cli.measures import DURATION, RATE
from novacron.core.settings import default_data_dir
from novacron.core.units import format_rate
from novacron.launch.bench.attempt import attempt
from novacron.launch.bench.cases import CASES, Trial, there_and_back
from novacron.launch.bench.report import show
from novacron.launch.bench.run import Run, compare
from novacron.launch.demo.journey import DOWNTIME_MS, MEMORY_BYTES
from novacron.launch.demo.site import SITES
from novacron.launch.guest.build import build
from novacron.launch.guest.workloads import DATABASE, WORKLOADS, kernel_arguments
from novacron.launch.lab.lab import open_lab
from novacron.launch.lab.link import Link
from novacron.launch.stock.contender import PEERS, Contender
from novacron.launch.stock.race import Entry, race
from novacron.protocol.migration import Strategy

ALL_PEERS: Final = tuple(PEERS)
STRATEGIES: Final = get_args(Strategy)
PRE_COPY_DID: Final = "pre-copy had converged before post-copy could begin"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    workloads: Sequence[str]
    peers: Sequence[str]
    cases: Sequence[str]
    runs: int
    give_up_s: float
    strategy: Strategy
    level: int


@click.command("migration")
@click.option(
    "--workload",
    "workloads",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    default=(DATABASE,),
    show_default=True,
    help="What the guest does; may be repeated.",
)
@click.option(
    "--peer",
    "peers",
    type=click.Choice(ALL_PEERS),
    multiple=True,
    default=ALL_PEERS,
    help="A mode of stock QEMU to compare with; may be repeated.  [default: all]",
)
@click.option(
    "--case",
    "cases",
    type=click.Choice(list(CASES)),
    multiple=True,
    help="What NovaCron does beside the way there and back; may be repeated.",
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="stream",
    show_default=True,
    help="By which NovaCron moves the guest.",
)
@click.option(
    "--level", type=click.IntRange(0, 19), default=1, show_default=True, help="Of its compression; 0: chosen."
)
@click.option("--link", type=RATE, default="200Mbit/s", show_default=True, help="Rate of the link.")
@click.option("--delay", type=DURATION, default="20ms", show_default=True, help="Of the link, one way.")
@click.option("--jitter", type=DURATION, default="0ms", show_default=True, help="Of the delay.")
@click.option("--loss", type=click.FloatRange(0, 50), default=0.0, show_default=True, help="Packets lost, in percent.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of each contender; medians count.")
@click.option("--give-up", type=DURATION, default="60s", show_default=True, help="How long a move may take.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the workload and of the loss.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(
    *,
    workloads: Sequence[str],
    peers: Sequence[str],
    cases: Sequence[str],
    strategy: Strategy,
    level: int,
    link: int,
    delay: int,
    jitter: int,
    loss: float,
    runs: int,
    give_up: int,
    seed: int,
    output: str,
) -> None:
    """Move the demo guest with NovaCron and with stock QEMU, and compare.

    A peer that has not moved the guest once is not tried again.
    """
    lab = Link(rate_bytes_s=link, delay_ms=delay, jitter_ms=jitter, loss=loss / 100, seed=seed)
    plan = Plan(workloads, peers, cases, runs, give_up / 1000, strategy, level)
    found, note = asyncio.run(_measure(lab, plan, click.echo if output == "table" else _say_nothing))
    comparisons = compare(found)
    if output == "json":
        document: dict[str, Any] = {"link": lab, "lab": note, "runs": found, "comparisons": comparisons}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    click.echo(f"{format_rate(link)}, {note}; medians of {runs}; ratios to the best stock mode")
    for comparison in comparisons:
        show(comparison)


async def _measure(link: Link, plan: Plan, tell: Callable[[str], None]) -> tuple[list[Run], str]:
    directory = default_data_dir("guest")
    found: list[Run] = []
    async with open_lab(link, SITES) as lab:
        for workload in plan.workloads:
            files = await asyncio.to_thread(build, directory, database=workload == DATABASE)
            trial = Trial(lab, files, workload, link.seed, plan.give_up_s, plan.strategy, plan.level)
            peers = [PEERS[name] for name in plan.peers]
            for number in range(plan.runs):
                tell(f"{workload}, run {number + 1} of {plan.runs}")
                ours = await _ours(trial, plan.cases)
                stock = [await attempt(workload, peer.name, _stock(trial, peer)) for peer in peers]
                peers = [peer for peer, run in zip(peers, stock, strict=True) if run.outcome == "moved"]
                found += [*ours, *stock]
        return found, lab.note


async def _ours(trial: Trial, cases: Sequence[str]) -> list[Run]:
    """The cases compare themselves with the way there."""
    runs = await there_and_back(trial)
    if runs[0].outcome == "moved":
        for name, case in (CASES[case] for case in cases):
            runs.append(await attempt(trial.workload, name, case(trial, runs[0])))
    return runs


async def _stock(trial: Trial, peer: Contender) -> Run:
    append = kernel_arguments(trial.workload, trial.seed)
    entry = Entry(trial.guest, MEMORY_BYTES, append, DOWNTIME_MS, trial.give_up_s)
    result = await race(trial.lab, SITES, peer, entry)
    figures = result.figures
    return Run(
        trial.workload,
        peer.name,
        "moved" if figures.converged else "gave up",
        total_ms=figures.total_ms,
        downtime_ms=figures.downtime_ms,
        link_bytes=result.link_bytes,
        errors=result.errors,
        note=PRE_COPY_DID if peer.post_copy and figures.converged and not figures.post_copy_bytes else "",
    )


def _say_nothing(_: str) -> None:
    """For programs: they read the end."""

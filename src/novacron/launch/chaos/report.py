"""What many runs come to."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

import click
from msgspec import Struct

from novacron.cli.output import table
from novacron.cli.texts import span
from novacron.core.units import format_rate
from novacron.launch.chaos.draw import SPARE
from novacron.launch.chaos.trial import Run
from novacron.launch.lab.link import Link

LATE: Final = 0.95


class Tally(Struct, frozen=True):
    """The runs in which the same was done to the same victim."""

    victim: str
    deed: str
    runs: int
    missed: int  # there was nothing to strike
    succeeded: int
    failed: int
    cancelled: int
    resumed: int  # failed, and the next attempt went through
    cold: int  # started again, after its own QEMU was killed
    violations: int
    median_ms: float
    p95_ms: float


class Report(Struct, frozen=True):
    """All of them; ``violations`` are those that ended wrong, with all that is known of them."""

    seed: int
    first: int
    runs: int
    link: Link
    errors: int  # found by the guest, like the next two
    lost: int
    doubled: int
    resumed: int
    median_ms: float
    p95_ms: float
    tallies: list[Tally]
    violations: list[Run]
    folder: str  # where the logs of violations are; empty without any


def report(runs: Sequence[Run], link: Link, folder: str) -> Report:
    """Sum up."""
    durations = [run.took_ms for run in runs if run.took_ms]
    violations = [run for run in runs if run.violation]
    by_deed: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.victim, run.deed)):
        by_deed.setdefault((run.victim, run.deed), []).append(run)
    return Report(
        seed=link.seed,
        first=runs[0].number,
        runs=len(runs),
        link=link,
        errors=sum(run.errors for run in runs),
        lost=sum(run.lost for run in runs),
        doubled=sum(run.doubled for run in runs),
        resumed=sum(run.resumed for run in runs),
        median_ms=_median(durations),
        p95_ms=_late(durations),
        tallies=[_tally(same) for same in by_deed.values()],
        violations=violations,
        folder=folder if violations else "",
    )


def print_report(told: Report) -> None:
    """For people."""
    table(
        ["victim", "deed", "runs", "missed", "ok", "failed", "resumed", "booted", "wrong", "median", "P95"],
        [
            [
                one.victim,
                one.deed,
                *(str(count) for count in (one.runs, one.missed, one.succeeded, one.failed, one.resumed, one.cold)),
                str(one.violations),
                span(one.median_ms),
                span(one.p95_ms),
            ]
            for one in told.tallies
        ],
    )
    click.echo(
        f"{told.runs} runs of seed {told.seed} from {told.first} on, {format_rate(told.link.rate_bytes_s)}: "
        f"{told.lost} records lost, {told.doubled} doubled, {told.errors} errors, {told.resumed} attempts resumed, "
        f"{len(told.violations)} violations; {span(told.median_ms)} (P95 {span(told.p95_ms)})"
    )
    for run in told.violations:
        click.echo(describe(run))


def describe(run: Run) -> str:
    """One run in one line."""
    deed = "" if run.deed == SPARE else f" {run.deed}"
    lasts = f" for {run.lasts_s:.1f} s" if run.lasts_s else ""
    struck = f"{run.victim}{deed}{lasts} at {run.share:.2f} ({span(run.moment_ms)}, {run.phase or 'not begun'})"
    missed = "" if run.hit or run.deed == SPARE else ", not there"
    after = [
        word for word, so in (("booted again", run.cold), (f"resumed ({run.attempts} attempts)", run.resumed)) if so
    ]
    ended = run.violation or ", ".join([run.outcome, *after, *([run.cause] if run.cause else [])])
    return f"{run.number:4}  {run.source} → {run.target}  {struck}{missed}: {ended}  ({span(run.took_ms)})"


def _tally(runs: Sequence[Run]) -> Tally:
    durations = [run.took_ms for run in runs if run.took_ms]
    return Tally(
        victim=runs[0].victim,
        deed=runs[0].deed,
        runs=len(runs),
        missed=sum(not run.hit and run.deed != SPARE for run in runs),
        succeeded=_ended(runs, "succeeded"),
        failed=_ended(runs, "failed"),
        cancelled=_ended(runs, "cancelled"),
        resumed=sum(run.resumed for run in runs),
        cold=sum(run.cold for run in runs),
        violations=sum(bool(run.violation) for run in runs),
        median_ms=_median(durations),
        p95_ms=_late(durations),
    )


def _ended(runs: Sequence[Run], outcome: str) -> int:
    return sum(run.outcome == outcome for run in runs)


def _median(durations: Sequence[int]) -> float:
    return median(durations) if durations else 0.0


def _late(durations: Sequence[int]) -> float:
    """95 of 100 took no longer."""
    return sorted(durations)[math.ceil(LATE * len(durations)) - 1] if durations else 0.0

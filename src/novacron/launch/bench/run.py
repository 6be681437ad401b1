"""One move in the benchmark, and what the runs of one workload come to."""

from collections.abc import Sequence
from statistics import median
from typing import Final, Literal

from msgspec import Struct

Outcome = Literal["moved", "gave up", "failed"]
STOCK: Final = "stock "  # what the names of the peers begin with


class Against(Struct, frozen=True):
    """What the bytes of a move are held against."""

    what: str
    link_bytes: int


class Run(Struct, frozen=True):
    """One move."""

    workload: str
    contender: str
    outcome: Outcome
    total_ms: int
    downtime_ms: int = 0
    link_bytes: int = 0
    errors: int = 0  # that the guest has found
    against: Against | None = None
    node_bytes: int = 0  # of anonymous memory, at most, in the busier node's process
    note: str = ""  # what a reader must know of it: why it failed


class Standing(Struct, frozen=True):
    """A contender's medians; ratios are None where one of the two did not move the guest in every run."""

    contender: str
    runs: int
    outcome: Outcome
    total_ms: float
    downtime_ms: float
    link_bytes: float
    errors: int
    time_ratio: float | None  # to the fastest peer
    bytes_ratio: float | None  # to the leanest peer
    share: float | None  # of the bytes that its own are held against
    share_of: str
    node_bytes: int  # largest of the runs
    note: str


class Comparison(Struct, frozen=True):
    """The contenders with one workload, in the order of their first runs."""

    workload: str
    fastest_peer: str  # of the stock modes that moved the guest whole in every run; empty when none did
    leanest_peer: str
    standings: list[Standing]


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each workload."""
    workloads = dict.fromkeys(run.workload for run in runs)
    return [_comparison(name, [run for run in runs if run.workload == name]) for name in workloads]


def _comparison(workload: str, runs: Sequence[Run]) -> Comparison:
    contenders = dict.fromkeys(run.contender for run in runs)
    all_runs = [[run for run in runs if run.contender == name] for name in contenders]
    peers = [found for found in all_runs if found[0].contender.startswith(STOCK) and _whole(found)]
    fastest, leanest = min(peers, key=_total_ms, default=()), min(peers, key=_link_bytes, default=())
    return Comparison(
        workload,
        fastest_peer=fastest[0].contender if fastest else "",
        leanest_peer=leanest[0].contender if leanest else "",
        standings=[_standing(found, fastest, leanest) for found in all_runs],
    )


def _standing(runs: Sequence[Run], fastest: Sequence[Run], leanest: Sequence[Run]) -> Standing:
    comparable = bool(fastest) and _outcome(runs) == "moved"
    shares = [run.link_bytes / run.against.link_bytes for run in runs if run.against]
    return Standing(
        contender=runs[0].contender,
        runs=len(runs),
        outcome=_outcome(runs),
        total_ms=_total_ms(runs),
        downtime_ms=median(run.downtime_ms for run in runs),
        link_bytes=_link_bytes(runs),
        errors=sum(run.errors for run in runs),
        time_ratio=_total_ms(runs) / _total_ms(fastest) if comparable else None,
        bytes_ratio=_link_bytes(runs) / _link_bytes(leanest) if comparable else None,
        share=median(shares) if shares else None,
        share_of=next((run.against.what for run in runs if run.against), ""),
        node_bytes=max(run.node_bytes for run in runs),
        note=next((run.note for run in runs if run.note), ""),
    )


def _total_ms(runs: Sequence[Run]) -> float:
    return median(run.total_ms for run in runs)


def _link_bytes(runs: Sequence[Run]) -> float:
    return median(run.link_bytes for run in runs)


def _outcome(runs: Sequence[Run]) -> Outcome:
    """Of all of them: moved when each one has."""
    return next((run.outcome for run in runs if run.outcome != "moved"), "moved")


def _whole(runs: Sequence[Run]) -> bool:
    return _outcome(runs) == "moved" and not any(run.errors for run in runs)

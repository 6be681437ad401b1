"""Migrations in Prometheus' words.

What has ended is counted, and a counter never falls: nothing of the record of an ended migration becomes less. What is
under way is shown by itself, as gauges: they go with its end.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from novacron.control.mirror import INCOMING, OUTGOING
from novacron.protocol.migration import ByteSplit, MigrationProgress
from novacron.protocol.resources import Migration

DIRECTIONS: Final = (OUTGOING, INCOMING)
OUTCOMES: Final = ("succeeded", "unverified", "failed", "cancelled", "rolled_back", "taken_over")
KINDS: Final = ("unchanged", "zero", "dedup", "delta", "literal")
DURATION_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
DOWNTIME_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
ONE: Final = ("migration", "vm", "direction")  # labels of one that is under way
FIGURES: Final[tuple[tuple[str, str, Callable[[MigrationProgress], float]], ...]] = (
    ("round", "Its round.", lambda now: now.round),
    ("done_bytes", "Guest bytes dealt with.", lambda now: now.done_bytes),
    ("planned_bytes", "Guest bytes to be dealt with, as known now.", lambda now: now.total_bytes),
    ("wire_bytes", "Bytes sent.", lambda now: now.wire_bytes),
    ("rate_bytes_per_second", "Guest bytes dealt with per second.", lambda now: now.rate_bytes_s),
    ("wire_rate_bytes_per_second", "Bytes sent per second.", lambda now: now.wire_rate_bytes_s),
    ("dirty_rate_bytes_per_second", "Memory that the guest changes per second.", lambda now: now.dirty_rate_bytes_s),
    ("rtt_seconds", "Smallest round-trip time of its link.", lambda now: now.rtt_ms / 1000),
    ("throttle_ratio", "Share of CPU time taken from the guest.", lambda now: now.throttle_percent / 100),
    ("streams", "Connections that it uses.", lambda now: now.streams),
    ("link_share_ratio", "Its part of what its node sends to that cluster.", lambda now: now.link_share),
)


def families(migrations: Sequence[Migration]) -> Iterator[Metric]:
    """All of them."""
    yield from _ended([move for move in migrations if move.outcome])
    yield from _under_way([move for move in migrations if not move.outcome])


def _ended(moves: Sequence[Migration]) -> Iterator[Metric]:
    count = CounterMetricFamily("novacron_migrations", "Ended migrations.", labels=["direction", "outcome"])
    wire = CounterMetricFamily("novacron_migration_wire_bytes", "Bytes sent by ended ones.", labels=["direction"])
    guest = CounterMetricFamily(
        "novacron_migration_guest_bytes", "Guest bytes of ended ones.", labels=["direction", "kind"]
    )
    took = HistogramMetricFamily("novacron_migration_duration_seconds", "From begin to end.", labels=["direction"])
    still = HistogramMetricFamily("novacron_migration_downtime_seconds", "Guest held.", labels=["direction"])
    for direction in DIRECTIONS:
        these = [move for move in moves if move.direction == direction]
        for outcome in OUTCOMES:
            count.add_metric([direction, outcome], sum(outcome in _outcomes(move) for move in these))
        wire.add_metric([direction], sum(_wire_bytes(move) for move in these))
        for kind in KINDS:
            guest.add_metric([direction, kind], sum(_of_kind(_split(move), kind) for move in these))
        summaries = [move.summary for move in these if move.summary is not None]
        _observe(took, direction, DURATION_S, [summary.total_ms / 1000 for summary in summaries])
        _observe(still, direction, DOWNTIME_S, [summary.downtime_ms / 1000 for summary in summaries])
    yield from (count, wire, guest, took, still)


def _under_way(moves: Sequence[Migration]) -> Iterator[Metric]:
    running = "novacron_migration_running"
    phase = GaugeMetricFamily(f"{running}_phase", "1 for the phase that it is in.", labels=[*ONE, "phase"])
    guest = GaugeMetricFamily(f"{running}_guest_bytes", "Guest bytes by kind.", labels=[*ONE, "kind"])
    for move in moves:
        phase.add_metric([*_one(move), move.phase], 1)
        for kind in KINDS:
            guest.add_metric([*_one(move), kind], _of_kind(move.progress.split, kind))
    yield from (phase, guest)
    for name, said, figure in FIGURES:
        family = GaugeMetricFamily(f"{running}_{name}", said, labels=ONE)
        for move in moves:
            family.add_metric(_one(move), figure(move.progress))
        yield family


def _one(move: Migration) -> tuple[str, str, str]:
    return move.id, move.vm_name, move.direction


def _outcomes(move: Migration) -> frozenset[str]:
    """One that arrived, and then was rolled back or taken over, is counted as both."""
    succeeded = move.outcome == "rolled_back" or (move.outcome == "taken_over" and move.summary is not None)
    verified = move.summary is None or move.summary.verified
    return frozenset({move.outcome, "succeeded" if verified else "unverified"} if succeeded else {move.outcome})


def _wire_bytes(move: Migration) -> int:
    return move.summary.wire_bytes if move.summary is not None else move.progress.wire_bytes


def _split(move: Migration) -> ByteSplit:
    return move.summary.split if move.summary is not None else move.progress.split


def _of_kind(split: ByteSplit, kind: str) -> int:
    found: int = getattr(split, f"{kind}_bytes")
    return found


def _observe(family: HistogramMetricFamily, direction: str, bounds: Sequence[float], values: Sequence[float]) -> None:
    """Counts of values up to each bound, and up to infinity."""
    within = [0] * (len(bounds) + 1)
    for value in values:
        within[bisect_left(bounds, value)] += 1
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    family.add_metric([direction], list(zip(names, accumulate(within), strict=True)), sum(values))

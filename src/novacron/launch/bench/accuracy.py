"""How right predictions were: of whole migrations by their plans, and of what was left of them early on the way."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Final

from msgspec import Struct

from novacron.protocol.plan import Interval
from novacron.protocol.resources import Migration, ProgressPoint

EARLY: Final = 0.05  # of the time that a migration takes
FIGURES: Final = ("total_ms", "downtime_ms", "wire_bytes")


class Foretold(Struct, frozen=True):
    """One figure of one migration."""

    figure: str
    said: Interval
    came: float

    @property
    def error(self) -> float:
        """How far off, as a share of what came."""
        return abs(self.said.value - self.came) / self.came

    @property
    def inside(self) -> bool:
        """Whether it came within the interval."""
        return self.said.low <= self.came <= self.said.high

    @property
    def width(self) -> float:
        """The interval's upper bound by its lower one."""
        return self.said.high / self.said.low


class Accuracy(Struct, frozen=True):
    """Of one figure, over all migrations; ``inside`` and ``width`` are None of what is told without an interval."""

    figure: str
    count: int
    median_error: float
    p95_error: float
    inside: float | None
    width: float | None


def by_plan(migration: Migration) -> list[Foretold]:
    """What the plan said beside what came; empty of one that has no plan, or no end."""
    predicted, summary = migration.predicted, migration.summary
    if predicted is None or summary is None:
        return []
    return [Foretold(name, getattr(predicted, name), getattr(summary, name)) for name in FIGURES]


def early_error(migration: Migration, series: Sequence[ProgressPoint]) -> float | None:
    """How far off the first word after 5 % of the time was, as a share of the whole; None: nothing was said by then."""
    ended_at = next((point.at for point in series if point.progress.eta_ms == 0), None)
    if ended_at is None:
        return None
    took_s = ended_at - migration.started_at
    for point in series:
        eta_ms = point.progress.eta_ms
        if point.at >= migration.started_at + EARLY * took_s and eta_ms:
            return abs(point.at + eta_ms / 1000 - ended_at) / took_s
    return None


def judge(foretold: Sequence[Foretold]) -> list[Accuracy]:
    """Of each figure."""
    return [_judge(name, [one for one in foretold if one.figure == name]) for name in FIGURES]


def judge_early(errors: Sequence[float]) -> Accuracy:
    """Of the time that was left."""
    return Accuracy("end, early on the way", len(errors), median(errors), _p95(errors), None, None)


def _judge(figure: str, all_of_it: Sequence[Foretold]) -> Accuracy:
    errors = [one.error for one in all_of_it]
    return Accuracy(
        figure,
        len(errors),
        median(errors),
        _p95(errors),
        inside=sum(one.inside for one in all_of_it) / len(all_of_it),
        width=median(one.width for one in all_of_it),
    )


def _p95(errors: Sequence[float]) -> float:
    return quantiles(errors, n=20, method="inclusive")[-1] if len(errors) > 1 else errors[0]

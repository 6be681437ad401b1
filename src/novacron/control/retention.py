"""Which restore points of a VM stay, and why: pure, so that it can be shown before anything goes.

Only newer points make an old one go, never the time alone: where backups have stopped, or a clock has jumped ahead,
nothing goes. Points whose own clock was wrong are told by the order in which points were made. They make no other go:

- one of the future stays, and counts for nothing, until its time has come;
- one that is behind a point made before it stays as long as that one, at least.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from novacron.control.hours import zone_of
from novacron.protocol.retention import KeepRules, RestorePoint, Verdict

DAY_S: Final = 86_400
PERIODS: Final[Mapping[str, Callable[[datetime], str]]] = {  # by the rule's name: which one an instant lies in
    "hourly": lambda at: at.strftime("%Y-%m-%d %H:00 %z"),  # an hour that the clocks show twice is two
    "daily": lambda at: at.strftime("%Y-%m-%d"),
    "weekly": lambda at: "{}-W{:02}".format(*at.isocalendar()),
    "monthly": lambda at: at.strftime("%Y-%m"),
    "yearly": lambda at: at.strftime("%Y"),
}


@dataclass(slots=True)
class _Case:
    """What speaks for a point, and what speaks against it."""

    kept: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def decide(points: Sequence[RestorePoint], rules: KeepRules, now: float) -> list[Verdict]:
    """Of each point of one VM, in their order, which is the order in which they were made. Ids are distinct.

    Raises InvalidInputError for a zone that is not known.
    """
    zone = zone_of(rules.zone)
    present = [point for point in points if point.created_at <= now]
    ahead_of = dict(_order(present))
    in_order = [point for point in present if ahead_of[point.id] == point.id]
    cases = _judge(present, rules, zone) | _judge(in_order, rules, zone)
    for point_id, ahead in ahead_of.items():
        if ahead != point_id and cases[ahead].kept:
            cases[point_id].kept.append(f"behind {ahead}, which was made before it: it stays as long")
    verdicts = []
    for point in points:
        case = cases.get(point.id, _Case(["its time is yet to come"]))
        kept = ["held", *case.kept] if point.held else case.kept
        verdicts.append(Verdict(point.id, bool(kept), tuple(kept or case.missed)))
    return verdicts


def _order(points: Sequence[RestorePoint]) -> Iterator[tuple[str, str]]:
    """Each point, and the latest of those made up to it: itself, where the clocks were right."""
    latest = points[0] if points else None
    for point in points:
        if latest is None or point.created_at >= latest.created_at:
            latest = point
        yield point.id, latest.id


def _judge(points: Sequence[RestorePoint], rules: KeepRules, zone: ZoneInfo) -> dict[str, _Case]:
    """By all rules. Of points with one time the one that was made last is the newest."""
    newest_first = sorted(points, key=lambda point: point.created_at)[::-1]
    cases = {point.id: _Case() for point in newest_first}
    for number, point in enumerate(newest_first):
        case, age_s = cases[point.id], newest_first[0].created_at - point.created_at
        if number < rules.minimum:
            case.kept.append(f"one of the newest {rules.minimum}")
        if rules.days and age_s <= rules.days * DAY_S:
            case.kept.append(f"within {rules.days} days of the newest")
        else:
            case.missed.append(f"{age_s / DAY_S:.1f} days older than the newest")
    instants = [datetime.fromtimestamp(point.created_at, zone) for point in newest_first]
    for rule, period_of in PERIODS.items():
        if wanted := getattr(rules, rule):
            periods = [period_of(instant) for instant in instants]
            _choose(f"{rule} {wanted}", wanted, periods, [cases[point.id] for point in newest_first])
    return cases


def _choose(rule: str, wanted: int, periods: Sequence[str], cases: Sequence[_Case]) -> None:
    """The newest of each of the newest ``wanted`` periods that have any; all of them newest first."""
    seen: set[str] = set()
    for period, case in zip(periods, cases, strict=True):
        if period in seen:
            case.missed.append(f"{rule}: {period} has a newer one")
            continue
        seen.add(period)
        if len(seen) <= wanted:
            case.kept.append(f"{rule}: {period}")
        else:
            case.missed.append(f"{rule}: there are {wanted} newer than {period}")

"""How fairly moves that went at once have shared their link, from what each of them told by time."""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

from novacron.launch.bench.errors import BenchError
from novacron.protocol.resources import ProgressPoint


class Mover(Struct, frozen=True):
    """One of them: bytes sent by time, from the first to the last while it had something to send."""

    vm: str
    weight: float
    points: tuple[tuple[float, int], ...]  # seconds, bytes; both only grow


class Part(Struct, frozen=True):
    """What one has had of the link while all had something to send; ``of_fair``: 1 is just what its weight gives it."""

    vm: str
    weight: float
    sent_bytes: int
    of_fair: float


class Fairness(Struct, frozen=True):
    """Of one run."""

    seconds: float  # in which all of them had something to send
    rate_bytes_s: float  # of all of them then
    parts: list[Part]
    deviation: float  # of the part that lies farthest from what is fair
    jain: float  # 1: all alike by their weights; 1 / n: one has everything


def mover(vm: str, weight: float, series: Sequence[ProgressPoint]) -> Mover:
    """Of a migration's series: while it copies, from its first byte on."""
    points = [(point.at, point.progress.wire_bytes) for point in series if point.progress.phase == "copy"]
    return Mover(vm, weight, tuple(point for point in points if point[1]))


def judge(movers: Sequence[Mover]) -> Fairness:
    """Over the time that is common to all; raises BenchError when there is none."""
    began = max((one.points[0][0] for one in movers if one.points), default=0.0)
    ended = min((one.points[-1][0] for one in movers if one.points), default=0.0)
    if not all(one.points for one in movers) or ended <= began:
        raise BenchError("there was no time in which all of them had something to send: take a slower link")
    sent = [_sent_by(one, ended) - _sent_by(one, began) for one in movers]
    total, weights = sum(sent), sum(one.weight for one in movers)
    parts = [
        Part(one.vm, one.weight, round(count), count / (total * one.weight / weights))
        for one, count in zip(movers, sent, strict=True)
    ]
    shares = [part.of_fair for part in parts]
    return Fairness(
        seconds=ended - began,
        rate_bytes_s=total / (ended - began),
        parts=parts,
        deviation=max(abs(share - 1) for share in shares),
        jain=sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)),
    )


def _sent_by(one: Mover, at: float) -> float:
    """Bytes sent by then, along the line between two points."""
    times = [time for time, _ in one.points]
    after = bisect_left(times, at)
    if after == 0:
        return one.points[0][1]
    (before_at, before), (after_at, behind) = one.points[after - 1 : after + 1]
    return before + (behind - before) * (at - before_at) / (after_at - before_at)

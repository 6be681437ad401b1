"""How a migration will go: what is known of the guest and the link, and what past predictions were worth.

Pure. Memory goes once, then in rounds of what the guest has dirtied meanwhile; a round takes as long as the link needs
for its bytes, or the source for making them. The rounds end when what is left fits into the downtime.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Final

from novacron.core.units import KIB
from novacron.migration.meter import JUDGED_AFTER_ROUNDS, SHRINKS
from novacron.migration.source import MIN_DOWNTIME_MS, OVERHEAD_MS
from novacron.protocol.migration import MigrationPolicy, MigrationSummary, Strategy, WhenBusy
from novacron.protocol.plan import Interval, LinkSample, Prediction, Survey

DISK_COST: Final = 0.35  # bytes on the wire for one of a disk
SIMILAR_COST: Final = 0.5  # of what is only like what lies there already
FIXED_S: Final = 0.6  # of any migration: agreeing, QEMU's setting up, seeing it live
FIXED_BYTES: Final = 128 * KIB  # of any migration: device state, empty rounds
ROUND_TRIPS: Final = 13  # of any migration: connecting, agreeing, disks and memory, the last word
SWITCHOVER_S: Final = 0.15  # beside RAM: device state, the last disk round, the destination's journal
SWITCHOVER_ROUND_TRIPS: Final = 3
MOST_ROUNDS: Final = 100
DIRECT_BYTES_S: Final = 600e6  # of memory that QEMU reads, encrypts and writes
DIRECT_GAIN: Final = 0.8  # of the time: what it must save at least, since the way back costs more after it
THROTTLED: Final = 0.5  # of what gets through: what a throttled guest may dirty
ENDLESS: Final[dict[WhenBusy, Strategy]] = {"wait": "cold", "postcopy": "postcopy"}
FEWEST_RESIDUALS: Final = 20
SPREAD_UNKNOWN: Final = {"total_ms": 1.6, "downtime_ms": 2.0, "wire_bytes": 1.6}  # factor to either side, until then


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to move, in bytes of the guest and on the wire."""

    memory_bytes: int
    memory_wire_bytes: float
    disk_bytes: float
    disk_wire_bytes: float
    dirty_bytes_s: float
    working_set_bytes: float
    dirty_cost: float
    encode_bytes_s: float
    filled_bytes: float = 0.0  # of memory that is not zero
    whole_wire_bytes: float = 0.0  # of all memory, told against nothing
    direct: bool = False  # whether the memory may go straight from QEMU to QEMU

    @classmethod
    def of(cls, survey: Survey, held: str, *, disks: bool, direct: bool = False) -> "Work":
        """After what lies at the destination already; ``direct``: it takes memory straight from another QEMU."""
        cost = SIMILAR_COST if held == "similar" else 1.0
        same = held == "same"
        disk = (survey.disk_return_bytes if same else survey.disk_bytes) if disks else 0
        return cls(
            memory_bytes=survey.memory_bytes,
            memory_wire_bytes=survey.ram_return_bytes if same else survey.ram_wire_bytes * cost,
            disk_bytes=disk,
            disk_wire_bytes=disk * DISK_COST * cost,
            dirty_bytes_s=survey.dirty_bytes_s,
            working_set_bytes=survey.working_set_bytes,
            dirty_cost=survey.dirty_cost,
            encode_bytes_s=max(survey.encode_bytes_s, 1.0),
            filled_bytes=survey.memory_bytes - survey.zero_bytes,
            whole_wire_bytes=survey.ram_wire_bytes,
            direct=direct and survey.direct,
        )

    def straight(self) -> "Work":
        """The same memory from QEMU to QEMU: nothing is left out, and nothing is made smaller."""
        return replace(self, memory_wire_bytes=self.filled_bytes, dirty_cost=1.0, encode_bytes_s=DIRECT_BYTES_S)

    def relayed(self) -> "Work":
        """The same memory from QEMU to QEMU through the nodes: made smaller, and told against nothing."""
        cost = min(1.0, self.whole_wire_bytes / self.filled_bytes) if self.filled_bytes else 1.0
        return replace(self, memory_wire_bytes=self.whole_wire_bytes, dirty_cost=cost)

    def dirtied(self, seconds: float) -> float:
        """Bytes that differ after a while."""
        if self.working_set_bytes <= 0:
            return 0.0
        return self.working_set_bytes * -math.expm1(-self.dirty_bytes_s * seconds / self.working_set_bytes)


@dataclass(frozen=True, slots=True)
class Rounds:
    """How the memory of a guest that runs moves: ``left_s`` is what it stands still for."""

    seconds: float
    wire_bytes: float
    left_s: float
    left_wire_bytes: float
    count: int
    converges: bool

    @property
    def total_s(self) -> float:
        """With what the guest stands still for."""
        return self.seconds + self.left_s


def choose(work: Work, link: LinkSample, policy: MigrationPolicy) -> Strategy:
    """As asked for; ``auto``: the guest runs meanwhile, unless that would never end; straight where that is faster.

    What would never end lets the guest go ahead of its memory where the policy says so.
    """
    if policy.strategy != "auto":
        return policy.strategy
    bytes_s = rate(link, policy)
    streamed, straight = (rounds(one, bytes_s, policy) for one in (work, work.straight()))
    if (
        work.direct
        and straight.converges
        and (not streamed.converges or straight.total_s < DIRECT_GAIN * streamed.total_s)
    ):
        return "native"
    return "stream" if streamed.converges else ENDLESS.get(policy.when_busy, "stream")


def predict(
    work: Work, link: LinkSample, policy: MigrationPolicy, strategy: Strategy, past: "Past"
) -> Prediction | None:
    """None for what would never end."""
    bytes_s = rate(link, policy)
    disk_s = max(work.disk_wire_bytes / bytes_s, work.disk_bytes / work.encode_bytes_s)
    work = work.straight() if strategy == "native" else work
    moved = _moved(work, bytes_s, policy, strategy)
    if not moved.converges and policy.when_busy == "throttle":
        calm = THROTTLED * through(work, bytes_s)
        moved = rounds(replace(work, dirty_bytes_s=min(calm, work.dirty_bytes_s)), bytes_s, policy)
    elif not moved.converges and policy.when_busy == "wait":
        return None
    elif not moved.converges and policy.when_busy == "postcopy":
        moved = gone_ahead(work, bytes_s)
    rtt_s = link.rtt_ms / 1000
    downtime_s = moved.left_s + SWITCHOVER_S + SWITCHOVER_ROUND_TRIPS * rtt_s
    total_s = FIXED_S + ROUND_TRIPS * rtt_s + disk_s + moved.seconds + downtime_s
    wire_bytes = FIXED_BYTES + work.disk_wire_bytes + moved.wire_bytes + moved.left_wire_bytes
    return Prediction(
        total_ms=past.interval("total_ms", total_s * 1000),
        downtime_ms=past.interval("downtime_ms", downtime_s * 1000),
        wire_bytes=past.interval("wire_bytes", wire_bytes),
    )


def rounds(work: Work, bytes_s: float, policy: MigrationPolicy) -> Rounds:
    """The whole memory, then what is dirtied while the round before is on its way."""
    limit_s = max(MIN_DOWNTIME_MS, policy.max_downtime_ms - OVERHEAD_MS) / 1000
    gets_through = through(work, bytes_s)
    left_s, left_wire = _whole(work, bytes_s), work.memory_wire_bytes
    seconds = wire = 0.0
    count, converges = 0, True
    while left_s > limit_s and count < MOST_ROUNDS:
        seconds, wire, before_s = seconds + left_s, wire + left_wire, left_s
        dirty = work.dirtied(left_s)
        left_s, left_wire = dirty / gets_through, dirty * work.dirty_cost
        count += 1
        if count >= JUDGED_AFTER_ROUNDS and left_s > max(limit_s, SHRINKS * before_s):
            converges = False
            break
    return Rounds(seconds, wire, left_s, left_wire, count, converges and left_s <= limit_s)


def standing_still(work: Work, bytes_s: float) -> Rounds:
    """Each page once."""
    return Rounds(0.0, 0.0, _whole(work, bytes_s), work.memory_wire_bytes, 1, converges=True)


def gone_ahead(work: Work, bytes_s: float) -> Rounds:
    """The whole memory once; what is dirtied meanwhile follows the guest, which stands still for none of it."""
    work = work.relayed()
    first_s = _whole(work, bytes_s)
    rest = work.dirtied(first_s)
    seconds = first_s + rest / through(work, bytes_s)
    return Rounds(seconds, work.memory_wire_bytes + rest * work.dirty_cost, 0.0, 0.0, 2, converges=True)


def _moved(work: Work, bytes_s: float, policy: MigrationPolicy, strategy: Strategy) -> Rounds:
    match strategy:
        case "cold":
            return standing_still(work, bytes_s)
        case "postcopy":
            return gone_ahead(work, bytes_s)
        case _:
            return rounds(work, bytes_s, policy)


def rate(link: LinkSample, policy: MigrationPolicy) -> float:
    """Bytes a second that this migration may have of the link."""
    share = link.rate_bytes_s * (policy.bandwidth_share or 1.0)
    return max(1.0, min(share, policy.bandwidth_bytes_s or math.inf))


def through(work: Work, bytes_s: float) -> float:
    """Bytes of dirtied memory that get through a second."""
    return min(work.encode_bytes_s, bytes_s / work.dirty_cost if work.dirty_cost > 0 else math.inf)


def _whole(work: Work, bytes_s: float) -> float:
    return max(work.memory_wire_bytes / bytes_s, work.memory_bytes / work.encode_bytes_s)


@dataclass(frozen=True, slots=True)
class Past:
    """What migrations came to that had been predicted."""

    pairs: Sequence[tuple[Prediction, MigrationSummary]] = ()

    def interval(self, figure: str, value: float) -> Interval:
        """Nine of ten, by how far past figures lay from what was said of them; it always holds ``value``."""
        pairs = [(getattr(said, figure).value, getattr(came, figure)) for said, came in self.pairs]
        residuals = [math.log(came / said) for said, came in pairs if said > 0 and came > 0]
        if len(residuals) < FEWEST_RESIDUALS:
            spread = SPREAD_UNKNOWN[figure]
            return Interval(value, value / spread, value * spread)
        low, *_, high = quantiles(residuals, n=20)
        return Interval(value, value * math.exp(min(low, 0.0)), value * math.exp(max(high, 0.0)))

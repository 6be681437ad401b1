"""What a migration has done so far, and what it says of it."""

import math
from dataclasses import dataclass, field
from typing import Final

from novacron.core.clock import Clock
from novacron.core.units import format_rate
from novacron.migration.traffic import Traffic
from novacron.protocol.migration import MigrationProgress, MigrationSummary, Verdict
from novacron.wire.estimate import Throughput
from novacron.wire.shares import Share

RATE_WINDOW_S: Final = 2.0
SHRINKS: Final = 0.9  # of the round before: a round that had less to send
JUDGED_AFTER_ROUNDS: Final = 3  # RAM rounds after which non-convergence is called


@dataclass(slots=True)
class Meter:
    """Counts of one migration at its source; read by whoever shows its progress."""

    clock: Clock
    phase: str = "prepare"
    round: int = 0
    planned_bytes: int = 0  # guest bytes that have to be dealt with, as known now
    dirty_rate_bytes_s: float = 0.0
    rtt_ms: float = 0.0
    streams: int = 0
    share: Share | None = None  # of the way that others take, too
    throttle_percent: int = 0
    compression_level: int = 0
    note: str = ""
    stalled_s: float = 0.0  # for how long nothing has moved, once that is worth a word
    ram: Traffic = field(default_factory=Traffic)
    disk: Traffic = field(default_factory=Traffic)
    relayed_bytes: int = 0
    stopped_at: float | None = None
    resumed_at: float | None = None
    _started_at: float = field(init=False)
    _content: Throughput = field(default_factory=lambda: Throughput(RATE_WINDOW_S))
    _wire: Throughput = field(default_factory=lambda: Throughput(RATE_WINDOW_S))
    converging: bool | None = None
    _begun_with: dict[int, int] = field(default_factory=dict)  # by round: bytes left when it was first looked at
    _held: bool = False

    def __post_init__(self) -> None:
        self._started_at = self.clock.monotonic()

    @property
    def done_bytes(self) -> int:
        """Guest bytes dealt with."""
        return self.ram.guest_bytes + self.disk.guest_bytes

    @property
    def wire_bytes(self) -> int:
        """Bytes put on the wire for guest content and QEMU's own stream."""
        return self.ram.wire_bytes + self.disk.wire_bytes + self.relayed_bytes

    @property
    def elapsed_ms(self) -> int:
        """Since the migration began."""
        return round((self.clock.monotonic() - self._started_at) * 1000)

    def plan(self, remaining_bytes: int) -> None:
        """``remaining_bytes`` of guest content are left, as known now; the total never shrinks."""
        self.planned_bytes = max(self.planned_bytes, self.done_bytes + remaining_bytes)

    def judge(self, *, round_number: int, remaining_bytes: int, bandwidth_bytes_s: float, downtime_ms: int) -> None:
        """Say whether the rounds shrink: from the third on, a guest that outruns the link is named."""
        self.round = round_number
        if self._held:
            return
        self._begun_with.setdefault(round_number, remaining_bytes)
        if round_number < JUDGED_AFTER_ROUNDS or bandwidth_bytes_s <= 0:
            return
        fits = remaining_bytes <= bandwidth_bytes_s * downtime_ms / 1000
        self.converging = fits or (self.dirty_rate_bytes_s < bandwidth_bytes_s and self._shrinks())
        self.note = (
            ""
            if self.converging
            else (
                f"will not converge at this rate: the guest dirties {format_rate(self.dirty_rate_bytes_s)}, "
                f"{format_rate(bandwidth_bytes_s)} of its memory gets through, and the rounds do not shrink; wait for "
                "a calmer moment, or cancel it and allow more: --max-downtime, --when-busy throttle, stop or postcopy"
            )
        )

    def _shrinks(self) -> bool:
        """Whether the latest round had less to send than the one before.

        A guest may dirty the same pages ever again: its rate, taken over a long round, says little then.
        """
        *_, before, latest = [math.inf, *(self._begun_with[number] for number in sorted(self._begun_with))]
        return latest < SHRINKS * before

    def hold(self, why: str) -> None:
        """The guest stands still from now on: there is nothing to be judged any more."""
        self._held = True
        self.converging = True
        self.note = why

    def progress(self) -> MigrationProgress:
        """What is known now."""
        if self.phase != "prepare":  # what goes before the copying says nothing about its rate
            now = self.clock.monotonic()
            self._content.add(now, self.done_bytes)
            self._wire.add(now, self.wire_bytes)
        left = max(0, self.planned_bytes - self.done_bytes)
        settled = self.phase not in {"prepare", "copy"}
        total = Traffic()
        total.add(self.ram)
        total.add(self.disk)
        return MigrationProgress(
            phase=self.phase,
            round=self.round,
            done_bytes=self.done_bytes,
            total_bytes=max(self.planned_bytes, self.done_bytes),
            rate_bytes_s=self._content.bytes_s,
            wire_rate_bytes_s=self._wire.bytes_s,
            dirty_rate_bytes_s=self.dirty_rate_bytes_s,
            eta_ms=0 if settled else self._eta_ms(left),
            wire_bytes=self.wire_bytes,
            rtt_ms=self.rtt_ms,
            streams=self.streams,
            link_share=self.share.now(self.clock.monotonic()) if self.share else 1.0,
            throttle_percent=self.throttle_percent,
            compression_level=self.compression_level,
            converging=True if settled else self.converging,
            note=f"stalled: nothing has moved for {self.stalled_s:.0f} s" if self.stalled_s else self.note,
            stalled_ms=round(self.stalled_s * 1000),
            split=total.split(),
        )

    def _eta_ms(self, left_bytes: int) -> int | None:
        """None until there is a rate worth believing."""
        rate, seen_s = self._content.bytes_s, self._content.seen_s
        return round(left_bytes / rate * 1000) if seen_s >= RATE_WINDOW_S / 2 and rate > 0 else None

    def summary(self, *, guest_bytes: int, wire_bytes: int, verdict: Verdict) -> MigrationSummary:
        """What it came to; ``wire_bytes`` as the channel counted them."""
        total = Traffic()
        total.add(self.ram)
        total.add(self.disk)
        elapsed = self.elapsed_ms
        stopped, resumed = self.stopped_at, self.resumed_at
        downtime = 0 if stopped is None or resumed is None else max(0, round((resumed - stopped) * 1000))
        return MigrationSummary(
            total_ms=elapsed,
            downtime_ms=downtime,
            rounds=self.round,
            guest_bytes=guest_bytes,
            wire_bytes=wire_bytes,
            ram_wire_bytes=self.ram.wire_bytes + self.relayed_bytes,
            disk_wire_bytes=self.disk.wire_bytes,
            bandwidth_bytes_s=round(wire_bytes * 1000 / elapsed) if elapsed else 0,
            verified=verdict.alive,
            split=total.split(),
            verdict=verdict.word,
            lifeless=verdict.lifeless,
            broken=verdict.broken,
            notes=verdict.notes,
            link_share=self.share.of_way() if self.share else 1.0,
        )

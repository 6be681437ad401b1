"""How hard to compress: so that the most guest memory gets through.

A byte of a guest costs the link its compressed part, and a processor the time to compress it. Both go on at once, so
the slower of them is what it costs. What either takes at each level is measured: the levels are tried, now and then, on
a piece of what moves; the link is what was waited for.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from novacron.content.batch import Packed, pack_batch
from novacron.content.codec import encode
from novacron.content.encoded import Encoded
from novacron.core.clock import Clock
from novacron.core.units import KIB

RAW: Final = 0
FIRST: Final = 1  # until the link is known
LEVELS: Final = (RAW, -5, FIRST, 3, 5, 7, 9)  # of zstd, each slower and denser than the one before on guest memory
WINDOW_S: Final = 0.25  # at the least
WINDOW_BYTES: Final = 256 * KIB  # that have to go meanwhile: a few say little of a link
WAITED: Final = 0.5  # share of the time in which link or compression was waited for: below it QEMU is the slowest
WORTHWHILE: Final = 1.1  # times as much that gets through: what another level must give
WORTH_MORE_BYTES: Final = 1.5  # the same of one that takes more of the link, which others may want
SAMPLE_BYTES: Final = 128 * KIB
TRIED_EVERY_S: Final = 2.0
LATEST: Final = 0.5  # weight of the latest measurement
KEPT: Final = 0.98  # of what is known of the link, a window in which it was not the slowest: it may have become faster


@dataclass(frozen=True, slots=True)
class Cost:
    """What a byte of whole pages costs at one level."""

    processor_s: float
    link_bytes: float

    def with_link(self, link_s: float, slowdown: float) -> float:
        """Seconds a byte, where the link takes ``link_s`` a byte, and work ``slowdown`` times what it takes alone."""
        return max(self.processor_s * slowdown, self.link_bytes * link_s)

    def after(self, before: "Cost | None") -> "Cost":
        """Smoothed."""
        if before is None:
            return self
        return Cost(_smooth(before.processor_s, self.processor_s), _smooth(before.link_bytes, self.link_bytes))


def cost_of(sample: memoryview, level: int) -> Cost:
    """As measured now, in this thread."""
    began = time.thread_time()
    packed = encode(sample, level)
    return Cost((time.thread_time() - began) / len(sample), len(packed) / len(sample))


def choose(costs: dict[int, Cost], link_s: float, slowdown: float, now: int) -> int:
    """The level: now's, unless another lets so much more through; then the cheapest that lets nearly the most."""
    seconds = {level: cost.with_link(link_s, slowdown) for level, cost in costs.items()}

    def pays(level: int) -> bool:
        denser = costs[level].link_bytes < costs[now].link_bytes
        return seconds[now] >= (WORTHWHILE if denser else WORTH_MORE_BYTES) * seconds[level]

    better = [level for level in LEVELS if level in costs and pays(level)]
    enough = WORTHWHILE * min((seconds[level] for level in better), default=0.0)
    return next((level for level in better if seconds[level] <= enough), now)


class Compression:
    """One migration's level; ``fixed`` is what somebody asked for, 0 leaves it to link and content.

    ``pack`` runs in threads, all else in the event loop's. ``measure`` tells the cost of a level for a piece of memory.
    """

    def __init__(self, clock: Clock, fixed: int = 0, *, measure: Callable[[memoryview, int], Cost] = cost_of) -> None:
        self._clock = clock
        self._fixed = fixed
        self._measure = measure
        self._level = FIRST
        self._costs: dict[int, Cost] = {}
        self._tried_at = -TRIED_EVERY_S
        self._trying = threading.Lock()
        self._packing = _Waited(clock)
        self._sending = _Waited(clock)
        self._sent_bytes = 0
        self._link_s: float | None = None
        self._link_was_slowest = False
        self._slowdown = 1.0
        self._packing_s = self._packing_cpu_s = 0.0
        self._began = clock.monotonic()

    @property
    def level(self) -> int:
        """Of zstd, for what is compressed next; ``RAW``: it is not."""
        return self._fixed or self._level

    def pack(self, encoded: Encoded) -> Packed:
        """Compress a batch, and now and then try the other levels on a piece of it."""
        began, began_cpu = time.perf_counter(), time.thread_time()
        packed = pack_batch(encoded, self.level)
        self._packing_s += time.perf_counter() - began
        self._packing_cpu_s += time.thread_time() - began_cpu
        if not self._fixed and len(encoded.literals) >= SAMPLE_BYTES and self._trying.acquire(blocking=False):
            try:
                self._try(encoded.literals)
            finally:
                self._trying.release()
        return packed

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Wait inside for a batch to be compressed."""
        with self._packing:
            yield

    @contextmanager
    def sending(self, count: int) -> Iterator[None]:
        """Wait inside until the link takes ``count`` bytes."""
        with self._sending:
            yield
        self._sent_bytes += count
        now = self._clock.monotonic()
        if now - self._began >= WINDOW_S and self._sent_bytes >= WINDOW_BYTES:
            self._judge(now - self._began)
            self._began = now

    def _try(self, pages: bytes) -> None:
        now = self._clock.monotonic()
        if now - self._tried_at < TRIED_EVERY_S:
            return
        at = (len(pages) - SAMPLE_BYTES) // 2
        sample = memoryview(pages)[at : at + SAMPLE_BYTES]
        self._costs = {level: self._measure(sample, level).after(self._costs.get(level)) for level in LEVELS}
        self._tried_at = now

    def _judge(self, window_s: float) -> None:
        packing_s, sending_s = self._packing.take(), self._sending.take()
        sent_bytes, self._sent_bytes = self._sent_bytes, 0
        if self._packing_cpu_s:
            self._slowdown = _smooth(self._slowdown, max(1.0, self._packing_s / self._packing_cpu_s))
        self._packing_s = self._packing_cpu_s = 0.0
        if packing_s + sending_s < WAITED * window_s or not self._costs:
            return
        least, most = sending_s / sent_bytes, window_s / sent_bytes  # the link works on while compression is waited for
        slowest = sending_s >= WAITED * window_s
        if slowest:
            self._link_s = _smooth(self._link_s or least, least) if self._link_was_slowest else least
        else:
            known = KEPT * self._link_s if self._link_s is not None else math.sqrt(least * most)
            self._link_s = min(max(least, known), most)
        self._link_was_slowest = slowest
        self._level = choose(self._costs, self._link_s, self._slowdown, self._level)


class _Waited:
    """Seconds in which somebody waited, however many did."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting = 0
        self._since = 0.0
        self._seconds = 0.0

    def __enter__(self) -> None:
        if not self._waiting:
            self._since = self._clock.monotonic()
        self._waiting += 1

    def __exit__(self, *_: object) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._seconds += self._clock.monotonic() - self._since

    def take(self) -> float:
        """Since this was asked before."""
        now = self._clock.monotonic()
        if self._waiting:
            self._seconds += now - self._since
            self._since = now
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _smooth(before: float, latest: float) -> float:
    return before + LATEST * (latest - before)

"""What a link is like, from what was seen on it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

SMOOTHING: Final = 0.125  # of the round-trip average, as TCP does (RFC 6298)

_FEWEST: Final = 2  # readings that make a rate


@dataclass(slots=True)
class RoundTrip:
    """Round-trip times of one connection, in milliseconds; zero until one was seen."""

    smoothed_ms: float = 0.0
    minimum_ms: float = 0.0

    def add(self, sample_ms: float) -> None:
        """One more sample."""
        if self.minimum_ms == 0.0:
            self.smoothed_ms = self.minimum_ms = sample_ms
            return
        self.smoothed_ms += SMOOTHING * (sample_ms - self.smoothed_ms)
        self.minimum_ms = min(self.minimum_ms, sample_ms)


@dataclass(slots=True)
class Throughput:
    """Bytes a second over the last ``window_s``, from readings of a count that only grows."""

    window_s: float
    _readings: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, total: int) -> None:
        """One more reading, at ``now`` (monotonic seconds)."""
        self._readings.append((now, total))
        while len(self._readings) > _FEWEST and now - self._readings[1][0] >= self.window_s:
            self._readings.popleft()

    @property
    def seen_s(self) -> float:
        """The time that the rate is taken over."""
        return self._readings[-1][0] - self._readings[0][0] if self._readings else 0.0

    @property
    def bytes_s(self) -> float:
        """Zero until two readings lie apart."""
        seen_s = self.seen_s
        return (self._readings[-1][1] - self._readings[0][1]) / seen_s if seen_s > 0 else 0.0

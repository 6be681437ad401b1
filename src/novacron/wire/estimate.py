"""What a link is like, from what was seen on it."""

from dataclasses import dataclass
from typing import Final

SMOOTHING: Final = 0.125  # of the round-trip average, as TCP does (RFC 6298)


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

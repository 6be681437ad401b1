"""A token bucket: a rate that may be changed on the way."""

import asyncio
from typing import Final

from novacron.core.clock import Clock

BURST_S: Final = 0.02  # of the rate: what may be sent at once
MIN_BURST_BYTES: Final = 16 * 1024


class TokenBucket:
    """Lets ``rate_bytes_s`` through (None: everything). Waiters are served in the order in which they came."""

    def __init__(self, rate_bytes_s: float | None, clock: Clock) -> None:
        self.rate_bytes_s = rate_bytes_s
        self._clock = clock
        self._tokens = 0.0
        self._filled_at = clock.monotonic()
        self._turn = asyncio.Lock()

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may go. More than a burst is let through in debt: the next one waits for it."""
        async with self._turn:
            while (wait_s := self._missing_s()) > 0:
                await self._clock.sleep(wait_s)
            self._tokens -= count

    def _missing_s(self) -> float:
        """Seconds until the bucket is out of debt."""
        now = self._clock.monotonic()
        if self.rate_bytes_s is None:
            self._tokens, self._filled_at = 0.0, now
            return 0.0
        burst = max(MIN_BURST_BYTES, self.rate_bytes_s * BURST_S)
        self._tokens = min(burst, self._tokens + (now - self._filled_at) * self.rate_bytes_s)
        self._filled_at = now
        return -self._tokens / self.rate_bytes_s if self._tokens <= -1 else 0.0  # less than a byte is no debt

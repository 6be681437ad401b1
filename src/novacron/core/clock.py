"""Time as a part that tests can hold: wall clock, monotonic clock, sleep."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait; a cancellation leaves nothing behind."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; a cancellation leaves nothing behind."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when it is told to; sleepers wake in the order of their deadlines."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since 1970, as set."""
        return self._now

    def monotonic(self) -> float:
        """The same count: this clock never goes back."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until ``advance`` has passed the deadline."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        entry = (self._now + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(entry)
        try:
            await entry[1]
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)

    async def advance(self, seconds: float) -> None:
        """Move time on, waking each sleeper at its own instant."""
        target = self._now + seconds
        while due := sorted((s for s in self._sleepers if s[0] <= target), key=lambda s: s[0]):
            deadline, future = due[0]
            self._sleepers.remove(due[0])
            self._now = max(self._now, deadline)
            if not future.done():
                future.set_result(None)
            for _ in range(10):  # let the woken task run on to its next wait
                await asyncio.sleep(0)
        self._now = target

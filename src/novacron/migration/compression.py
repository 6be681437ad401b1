"""How hard to compress: as hard as the link leaves time for.

Whoever sends waits either for the link, while processors idle, or for the compression, while the link does. The first
is answered by a higher level, the second by a lower one; where neither is waited for, the guest's own QEMU is the
slowest, and the level stays.
"""

from typing import Final

from novacron.core.clock import Clock

LEVELS: Final = (1, 3, 5, 6, 7, 9)  # of zstd, each slower and denser than the one before on guest memory
WINDOW_S: Final = 0.5
LINK_BOUND: Final = 0.5  # share of the time in which the link was waited for, from which on it is the slowest
PACKING_BOUND: Final = 0.25  # share in which compression was
SHY_S: Final = 10.0  # how long a level that was too slow is not tried again


class Compression:
    """One migration's level; ``fixed`` is what somebody asked for, 0 leaves it to the link."""

    def __init__(self, clock: Clock, fixed: int = 0) -> None:
        self._clock = clock
        self._fixed = fixed
        self._at = 0
        self._too_slow = len(LEVELS)
        self._shy_until = 0.0
        self._began = clock.monotonic()
        self._packing_s = 0.0
        self._sending_s = 0.0

    @property
    def level(self) -> int:
        """Of zstd, for what is compressed next."""
        return self._fixed or LEVELS[self._at]

    def waited(self, *, packing_s: float, sending_s: float) -> None:
        """One frame was waited for, first until it was compressed, then until the link took it."""
        self._packing_s += packing_s
        self._sending_s += sending_s
        now = self._clock.monotonic()
        if now - self._began >= WINDOW_S:
            self._judge(now, now - self._began)
            self._began, self._packing_s, self._sending_s = now, 0.0, 0.0

    def _judge(self, now: float, window_s: float) -> None:
        if now >= self._shy_until:
            self._too_slow = len(LEVELS)
        if self._packing_s > PACKING_BOUND * window_s and self._packing_s > self._sending_s:
            self._too_slow, self._shy_until = max(self._at, 1), now + SHY_S
            self._at = max(0, self._at - 1)
        elif self._sending_s > LINK_BOUND * window_s:
            self._at = min(self._at + 1, self._too_slow - 1)

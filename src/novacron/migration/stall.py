"""A migration that stands still: nothing of the guest moves, while the connections to the other side live.

A side that is gone is noticed by their heartbeats. One whose disk or QEMU hangs answers them, and takes no more.
"""

from typing import Final, Protocol

from novacron.core.clock import Clock
from novacron.migration.errors import StalledError
from novacron.migration.meter import Meter

LOOK_EVERY_S: Final = 0.5
NAMED_AFTER: Final = 0.5  # of the time after which it is given up
WATCHED: Final = frozenset({"copy", "switchover"})


class Paced(Protocol):
    """A channel that may be held back by its own rate, which is no stall."""

    @property
    def held_back(self) -> bool:
        """Whether it waits for its rate now."""
        ...


async def watch(meter: Meter, channel: Paced, clock: Clock, give_up_after_s: float) -> None:
    """Name a migration that stands still, for ever; raises StalledError when it has for ``give_up_after_s``."""
    moved_at, seen = clock.monotonic(), _figures(meter)
    while True:
        await clock.sleep(min(LOOK_EVERY_S, give_up_after_s / 4))
        now = _figures(meter)
        if now != seen or channel.held_back or meter.phase not in WATCHED:
            moved_at, seen = clock.monotonic(), now
        stood_s = clock.monotonic() - moved_at
        meter.stalled_s = stood_s if stood_s >= NAMED_AFTER * give_up_after_s else 0.0
        if stood_s >= give_up_after_s:
            raise StalledError(
                f"nothing has moved for {stood_s:.0f} s in phase {meter.phase}, while the other side answers",
                next_command="novacron node list (is a disk or a QEMU of one of them hung?)",
            )


def _figures(meter: Meter) -> tuple[str, int, int, int]:
    return meter.phase, meter.round, meter.done_bytes, meter.wire_bytes

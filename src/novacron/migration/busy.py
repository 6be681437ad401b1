"""A guest that outruns the link is waited for, but not for ever when its policy says so, nor where it may go ahead."""

from typing import Final

from novacron.core.clock import Clock
from novacron.migration.errors import GuestBusyError
from novacron.migration.meter import Meter
from novacron.protocol.migration import MigrationPolicy

LOOK_EVERY_S: Final = 0.5


async def watch(meter: Meter, policy: MigrationPolicy, clock: Clock) -> None:
    """Raises GuestBusyError once the guest has outrun the link for ``busy_after_ms`` on end; for ever else.

    Where its memory may follow it, at once: QEMU must begin again for that.
    """
    limit_s = policy.busy_after_ms / 1000
    since = clock.monotonic()
    while True:
        await clock.sleep(LOOK_EVERY_S)
        outrun = policy.strategy != "postcopy" and meter.phase == "copy" and meter.converging is False
        if outrun and policy.when_busy == "postcopy":
            raise GuestBusyError("the guest outruns the link: its memory must follow it")
        if not outrun or policy.when_busy != "wait" or not limit_s:
            since = clock.monotonic()
        elif clock.monotonic() - since >= limit_s:
            raise GuestBusyError(
                f"the guest has outrun the link for {limit_s:g} s",
                next_command="novacron migrate with --when-busy throttle, stop or postcopy, or a longer --busy-after",
            )

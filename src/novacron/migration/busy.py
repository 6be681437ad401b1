"""A guest that outruns the link is waited for, but not for ever when its policy says so."""

from typing import Final

from novacron.core.clock import Clock
from novacron.migration.errors import GuestBusyError
from novacron.migration.meter import Meter
from novacron.protocol.migration import MigrationPolicy

LOOK_EVERY_S: Final = 0.5


async def watch(meter: Meter, policy: MigrationPolicy, clock: Clock) -> None:
    """Raises GuestBusyError once the guest has outrun the link for ``busy_after_ms`` on end; for ever else."""
    limit_s = policy.busy_after_ms / 1000
    since = clock.monotonic()
    while True:
        await clock.sleep(LOOK_EVERY_S)
        waited_for = policy.when_busy == "wait" and meter.phase == "copy" and meter.converging is False
        if not waited_for or not limit_s:
            since = clock.monotonic()
        elif clock.monotonic() - since >= limit_s:
            raise GuestBusyError(
                f"the guest has outrun the link for {limit_s:g} s",
                next_command="novacron migrate with --when-busy throttle, --when-busy stop, or a longer --busy-after",
            )

"""The memory straight from one QEMU to the other, for links that are faster than pages can be encoded.

The two speak TLS under a key of this migration, which went over our own channel. What QEMU writes itself is no arrival
image: the way back is told against nothing. Disks, and the hand-over, go as always.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from novacron.hypervisor.driver import DirectLink, Machine, MachineEvent, MigrationStatus
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration.errors import QemuFailedError
from novacron.migration.frames import Link
from novacron.migration.meter import Meter
from novacron.migration.traffic import Traffic
from novacron.protocol.migration import MigrationPolicy

KEY_BYTES: Final = 32
MOST_CHANNELS: Final = 4  # unless more are asked for: each costs a thread on both sides
Begin = Callable[[int], Awaitable[None]]  # of the memory's way, with the downtime in ms that is aimed at


def new_link(policy: MigrationPolicy) -> Link:
    """A key that nobody has seen before, and connections for as many cores as there are."""
    channels = policy.streams or max(2, min(MOST_CHANNELS, os.cpu_count() or 1))
    return Link(secrets.token_bytes(KEY_BYTES), channels)


@asynccontextmanager
async def straight_to(
    address: str, link: Link, machine: Machine, meter: Meter, rate: int | None
) -> AsyncIterator[Begin]:
    """At the source. Whatever goes wrong cuts the connections: QEMU may hang in one that nobody reads any more."""

    async def begin(downtime_ms: int) -> None:
        direct = DirectLink(link.key, link.channels)
        await machine.migrate_direct(direct, address, downtime_ms=downtime_ms, bandwidth_bytes_s=rate)

    try:
        yield begin
        count(meter, await machine.migration_status())
    except BaseException:
        with contextlib.suppress(QemuDiedError):
            await machine.cut_migration()
        raise
    finally:
        with contextlib.suppress(QemuDiedError):
            await machine.end_direct()


def count(meter: Meter, status: MigrationStatus) -> None:
    """QEMU counts what it sends itself."""
    meter.ram = Traffic(
        zero_bytes=status.zero_bytes, literal_bytes=status.whole_bytes, compressed_wire_bytes=status.sent_bytes
    )


async def loaded(machine: Machine, events: AsyncIterator[MachineEvent]) -> None:
    """At the destination: return when QEMU has everything, and stands still with it; raises QemuFailedError."""
    async for event in events:
        if event.name == "MIGRATION" and event.data["status"] == "completed":
            return
    raise QemuFailedError(f"this node's QEMU could not load: {await machine.last_words() or 'it said nothing'}")

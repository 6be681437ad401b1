"""Memory that follows its guest (post-copy), over as many channels as it takes, whichever node is started again.

The source's QEMU holds pages that nobody else has, the destination's waits for them: neither is ended here, however
long the link between them is broken.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError, RemoteError
from novacron.core.ids import MigrationId
from novacron.hypervisor.driver import Driver, Machine
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import Failed, FrameType, pack
from novacron.migration.handover import Attempt
from novacron.migration.line import Line
from novacron.migration.postcopy import Held, Lacking
from novacron.protocol.migration import Verdict
from novacron.wire.channel import ParallelChannel

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
Connect = Callable[[], Awaitable[ParallelChannel]]
log = structlog.get_logger()


async def send_rest(held: Held, connect: Connect, *, vm: str) -> Verdict:
    """At the source: channel after channel, until all memory is there and the destination has said how the guest is.

    Of a guest whose QEMU has died over there it says so: what is held here is all that is left. Raises QemuDiedError
    when the source's has: then the rest is lost. A cancellation leaves both QEMUs waiting.
    """
    wait_s = FIRST_WAIT_S
    try:
        while True:
            try:
                async with await connect() as channel:
                    return await held.follow(channel)
            except RemoteError as error:
                if error.code == QemuDiedError.code:
                    await held.conclude()
                    return Verdict(alive=True, word="it ran until its QEMU died there")
                cause: object = error
            except QemuDiedError:
                raise
            except (NovaCronError, OSError, TimeoutError) as error:
                cause = error
            held.meter.note = (
                f"the link is broken ({cause}); the guest runs over there and waits where it needs what has not come; "
                f"the next try is in {wait_s:g} s. If the other side never comes back: novacron vm take-over {vm}"
            )
            log.info("rest_not_sent", vm=vm, cause=str(cause))
            await held.clock.sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
    finally:
        await held.close()


class Rests:
    """At the destination: memory that is still to come, by migration."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._lacking: dict[MigrationId, Lacking] = {}
        self._channels: dict[MigrationId, ParallelChannel] = {}
        self._locks: dict[MigrationId, asyncio.Lock] = {}

    async def close(self) -> None:
        """The node stops: the QEMUs wait."""
        for lacking in self._lacking.values():
            await lacking.close()

    def keep(self, attempt: Attempt, machine: Machine, line: Line) -> None:
        """The first channel has broken: the line goes on over the next one."""
        self._lacking[attempt.migration_id] = self._lacks(attempt, machine, line)

    def _lacks(self, attempt: Attempt, machine: Machine, line: Line | None = None) -> Lacking:
        return Lacking(machine, self._driver.socket_dir(machine) / "rest", attempt.epoch, self._clock, line)

    async def receive(self, attempt: Attempt, machine: Machine | None, channel: ParallelChannel) -> None:
        """All that is missing, over one more channel; the one before it has ended, whether that was heard or not."""
        if machine is None:
            error = QemuDiedError(f"the QEMU of VM {attempt.vm_id} has died before all of its memory had come")
            await channel.receive()
            await channel.send(FrameType.FAILED, pack(Failed(error.code, error.cause)))
            raise error
        async with self._alone(attempt.migration_id, channel):
            lacking = self._lacking.get(attempt.migration_id)
            if lacking is None or lacking.machine.instance != machine.instance:
                lacking = self._lacking[attempt.migration_id] = self._lacks(attempt, machine)
            await lacking.receive(channel)
            await lacking.close()
            del self._lacking[attempt.migration_id]

    @asynccontextmanager
    async def _alone(self, migration_id: MigrationId, channel: ParallelChannel) -> AsyncIterator[None]:
        if (older := self._channels.get(migration_id)) is not None:
            older.abort()
        self._channels[migration_id] = channel
        async with self._locks.setdefault(migration_id, asyncio.Lock()):
            if self._channels[migration_id] is not channel:
                raise ChannelProtocolError("a newer channel has come")
            try:
                yield
            finally:
                if self._channels[migration_id] is channel:
                    del self._channels[migration_id]

"""Post-copy: the guest runs at the destination, and the rest of its memory follows it.

The memory goes once while the guest runs at the source; what it has changed since follows it. Both QEMUs speak with
each other over a line (``migration.line``). The source commits, as in every other migration, once the destination holds
all that the guest needs to run; until then it takes the VM back, whatever fails. From then on a page may be needed that
only the source has: nothing here ends what holds it.

Both ends go on over channel after channel, until the destination's QEMU says that it has everything.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine, MachineEvent, MachineState, MigrationStatus
from novacron.hypervisor.errors import HypervisorError
from novacron.migration import native
from novacron.migration.beside import beside
from novacron.migration.errors import ChannelProtocolError, QemuFailedError, StaleEpochError
from novacron.migration.frames import Failed, Follow, Followed, FrameType, gave_up, pack, unpack
from novacron.migration.line import Line
from novacron.migration.meter import Meter
from novacron.protocol.migration import Verdict
from novacron.wire.channel import ParallelChannel

KEY_BYTES: Final = 32
LOOK_EVERY_S: Final = 0.5
SOON_EVERY_S: Final = 0.01
CONNECT_S: Final = 10.0
GIVE_UP_S: Final = 10.0  # all of a large memory may have to be taken first
SETTLES_S: Final = 5.0  # between the last byte and QEMU's word that it has everything
LINE_FRAMES: Final = frozenset({FrameType.LINE, FrameType.TAKEN})


async def can_run(machine: Machine, events: AsyncIterator[MachineEvent], clock: Clock) -> None:
    """At the destination: return when QEMU has what the guest needs to run, and stands still with it."""
    async for event in events:
        if event.name == "MIGRATION" and event.data["status"] in {"postcopy-active", "completed"}:
            while await machine.state() is not MachineState.PAUSED:
                await clock.sleep(SOON_EVERY_S)
            return
    raise QemuFailedError(f"this node's QEMU could not load: {await machine.last_words() or 'it said nothing'}")


async def all_here(machine: Machine, line: Line, clock: Clock) -> None:
    """At the destination: return when all memory has come; raises QemuFailedError when its connection ended before."""
    await line.done.wait()
    deadline = clock.monotonic() + SETTLES_S
    while (status := (await machine.migration_status()).status) != "completed":
        if clock.monotonic() > deadline:
            raise QemuFailedError(f"the memory has not come whole: this node's QEMU says {status}")
        await clock.sleep(SOON_EVERY_S)


async def give_up(machine: Machine, line: Line) -> None:
    """At the source: nobody needs the rest any more, and the guest can go on here if nobody has it.

    What goes wrong is told by whoever takes the guest back then.
    """
    if line.ended.is_set():
        return
    with contextlib.suppress(HypervisorError, TimeoutError):
        async with asyncio.timeout(GIVE_UP_S), beside(line.discard()):
            if (await machine.migration_status()).status == "postcopy-active":
                await line.conclude()
            else:
                await machine.cancel_migration()


def count(meter: Meter, status: MigrationStatus, line: Line) -> None:
    """QEMU counts the pages, the line what they cost."""
    native.count(meter, status)
    meter.ram.compressed_wire_bytes = line.relayed_bytes


async def hear(channel: ParallelChannel, line: Line) -> None:
    """Nothing but the other side's QEMU, until the channel ends."""
    while True:
        kind, body = await channel.receive()
        if kind not in LINE_FRAMES:
            raise ChannelProtocolError(f"a frame of type {kind} while memory follows")
        await line.heard(kind, body)


@dataclass(slots=True)
class Held:
    """The source's end: its QEMU holds what has not come yet. ``line`` is that of the channel before, if it lives."""

    machine: Machine
    socket: Path
    epoch: int
    meter: Meter
    clock: Clock
    line: Line | None = None

    async def follow(self, channel: ParallelChannel) -> Verdict:
        """Send the rest over one more channel, until the destination's last word; raises what broke it."""
        line, next_key = self.line, secrets.token_bytes(KEY_BYTES)
        question = Follow(self.epoch, line.key if line else b"", next_key, line.taken if line else 0)
        await channel.send(FrameType.FOLLOW, pack(question))
        kind, body = await channel.receive()
        if kind == FrameType.FOLLOWED:
            answer = unpack(body, Followed)
            if answer.anew or line is None:
                line = await self._anew(next_key)
            async with beside(line.carry(channel, lambda: channel.rtt_ms, taken=answer.taken), self._count(line)):
                self.meter.note = ""
                return await _last_word(channel, line)
        return _verdict(kind, body)

    async def conclude(self) -> None:
        """Nobody needs the rest any more."""
        if self.line is not None:
            await give_up(self.machine, self.line)

    async def close(self) -> None:
        """QEMU keeps what it holds, and waits for another connection."""
        if self.line is not None:
            await self.line.close()

    async def _anew(self, key: bytes) -> Line:
        """Between the QEMUs: the destination's tells which pages it has, the source's sends the others."""
        await self.close()
        line = self.line = Line.at(self.socket, key, self.clock)
        await self.machine.resume_migration(self.socket)
        async with asyncio.timeout(CONNECT_S):
            await line.open()
        return line

    async def _count(self, line: Line) -> None:
        while True:
            status = await self.machine.migration_status()
            self.meter.plan(status.remaining_bytes)
            count(self.meter, status, line)
            await self.clock.sleep(LOOK_EVERY_S)


async def _last_word(channel: ParallelChannel, line: Line) -> Verdict:
    while True:
        kind, body = await channel.receive()
        if kind not in LINE_FRAMES:
            return _verdict(kind, body)
        await line.heard(kind, body)


def _verdict(kind: int, body: bytes | memoryview) -> Verdict:
    if kind == FrameType.FAILED:
        raise gave_up(unpack(body, Failed))
    if kind != FrameType.VERIFIED:
        raise ChannelProtocolError(f"a frame of type {kind} while memory follows")
    return unpack(body, Verdict)


@dataclass(slots=True)
class Lacking:
    """The destination's end: its QEMU runs the guest, and lacks memory. ``line`` is that of the channel before."""

    machine: Machine
    socket: Path
    epoch: int
    clock: Clock
    line: Line | None = None

    async def receive(self, channel: ParallelChannel) -> None:
        """Take what comes over one more channel; return when all memory is here; raises what broke it."""
        kind, body = await channel.receive()
        if kind != FrameType.FOLLOW:
            raise ChannelProtocolError("a later channel does not begin with what follows")
        follow = unpack(body, Follow)
        if follow.epoch != self.epoch:
            raise StaleEpochError(f"memory of epoch {follow.epoch} follows, where epoch {self.epoch} runs")
        if await self._is_complete():
            return
        line, taken = self.line, follow.taken
        anew = line is None or line.key != follow.key or line.ended.is_set()
        if line is None or anew:
            line, taken = await self._anew(follow.next_key), 0
        await channel.send(FrameType.FOLLOWED, pack(Followed(anew, line.taken)))
        async with beside(hear(channel, line), line.carry(channel, lambda: channel.rtt_ms, taken=taken)):
            await all_here(self.machine, line, self.clock)

    async def close(self) -> None:
        """QEMU keeps what has come, and waits for another connection."""
        if self.line is not None:
            await self.line.close()

    async def _anew(self, key: bytes) -> Line:
        await self.close()
        await self.machine.recover_incoming(self.socket)
        line = self.line = Line.to(self.socket, key, self.clock)
        await line.open()
        return line

    async def _is_complete(self) -> bool:
        """Whether QEMU says so; one that waits for a page says nothing."""
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                return (await self.machine.migration_status()).status == "completed"
        except TimeoutError:
            return False

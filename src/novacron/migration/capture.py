"""A running VM as it is at one instant: memory, devices and disks, brought into a repository.

The guest runs while its disks are copied and QEMU sends its memory in rounds, to a file beside it. Then it stands
still: what is left of both is read, its devices tell their state, and it goes on. Its owner stays its owner all the
time: nothing was handed over, so QEMU, whose migration has completed, may go on (docs/handover.md).
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.core.clock import Clock
from novacron.core.units import MIB
from novacron.hypervisor.driver import Machine, MachineState
from novacron.migration.beside import beside
from novacron.migration.disk_capture import DiskCapture
from novacron.migration.qemu_watch import QemuWatch
from novacron.migration.ram_file import RamFile
from novacron.repository.manifest import Stream
from novacron.repository.regions import Piece
from novacron.repository.writer import Writer

DOWNTIME_MS: Final = 100  # that QEMU aims at; the last round of the disks comes on top
ROUNDS: Final = 12  # of memory; a guest that has not settled by then stands still for the rest
DISK_ROUNDS: Final = 4
FEW_BYTES: Final = 16 * MIB  # of disks left: they may wait for the last round
INSTANT_TIMEOUT_S: Final = 60.0
READ_BYTES: Final = MIB
LOOK_EVERY_S: Final = 0.002
RAM, DEVICES = "ram", "devices"


@dataclass(slots=True)
class Stages:
    """How far a capture is; read by others."""

    phase: str = "disks"  # memory, instant, storing
    total_bytes: int = 0
    stood_still_at: float = 0.0  # seconds since 1970


class Capture:
    """One capture of ``machine``. Whoever started it takes the VM back when it fails (``recovery.take_back``)."""

    def __init__(
        self, machine: Machine, writer: Writer, clock: Clock, *, running: bool, socket: Path, ram: Path, aside: Path
    ) -> None:
        """``socket``: where QEMU will find this; ``ram``: a file of zeros, as large as the guest's memory."""
        self._machine = machine
        self._writer = writer
        self._clock = clock
        self._running = running
        self._socket = socket
        self._ram_path = ram
        self._ram = RamFile(ram, machine.spec.memory_bytes)
        self._disks = DiskCapture(machine, writer, aside)
        self._watch = QemuWatch(machine, clock)
        self.stages = Stages()
        self.downtime_ms = 0.0

    async def take(self) -> None:
        """Everything lies aside when this returns, and the guest has gone on, if it ran before."""
        async with self._machine.events() as events, beside(self._watch.run(events)):
            await self._copy_disks()
            async with self._ram.receiving(self._socket):
                await self._rounds()
                await self._at_one_instant()
                await self._ram.whole()

    async def _copy_disks(self) -> None:
        await self._disks.copy()
        self.stages.total_bytes = self._disks.in_use_bytes + self._machine.spec.memory_bytes
        for _ in range(DISK_ROUNDS):
            if await self._disks.round() <= FEW_BYTES:
                return

    async def _rounds(self) -> None:
        """Until QEMU has stopped the guest."""
        self.stages.phase = "memory"
        await self._machine.prepare_capture()
        await self._machine.migrate(self._socket, downtime_ms=DOWNTIME_MS)
        seen = 0
        while not await self._watch.reach("pre-switchover", within_s=1.0, round_after=seen):
            seen = self._watch.rounds
            await self._disks.round()
            if seen > ROUNDS and self._watch.stopped_at is None:
                await self._machine.pause()

    async def _at_one_instant(self) -> None:
        """The guest stands still; it goes on as soon as QEMU has told everything."""
        self.stages.phase = "instant"
        async with asyncio.timeout(INSTANT_TIMEOUT_S):
            self.stages.stood_still_at = self._clock.now()
            await self._disks.hold()
            await self._disks.clean_up()
            await self._machine.continue_migration()
            await self._watch.reach("completed")
            while await self._machine.state() is MachineState.FINISH_MIGRATE:
                await self._clock.sleep(LOOK_EVERY_S)  # its last word comes a moment before it has settled
            if self._running:
                await self._machine.resume()
        if self._running and self._watch.stopped_at is not None:
            self.downtime_ms = (self._clock.monotonic() - self._watch.stopped_at) * 1000

    async def store(self) -> tuple[Stream, ...]:
        """What was taken, in the repository."""
        self.stages.phase = "storing"
        ram_bytes = self._ram_path.stat().st_size
        ram = await self._writer.store(Stream.empty(RAM, ram_bytes), _read(self._ram_path))
        devices = bytes(self._ram.device)
        return (
            ram,
            await self._writer.store(Stream.empty(DEVICES, len(devices)), _whole(devices)),
            *await self._disks.streams(),
        )


async def _read(path: Path) -> AsyncIterator[Piece]:
    with path.open("rb") as file:
        offset = 0
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            yield offset, data
            offset += len(data)


async def _whole(data: bytes) -> AsyncIterator[Piece]:
    yield 0, data

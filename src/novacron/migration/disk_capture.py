"""The disks of a running VM, brought into a repository as they are at one instant.

All that is allocated first, while the guest writes; then what it wrote meanwhile, by rounds of dirty bitmaps. What is
left when it stands still is read into files aside, so that it may go on before that is stored.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from novacron.hypervisor.driver import Machine
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION
from novacron.migration.disk_reading import Range, in_pieces, read, whole_units
from novacron.repository.manifest import Stream
from novacron.repository.regions import Piece
from novacron.repository.writer import Writer

BITMAP: Final = "novacron-checkpoint-"  # and the number of the round
Work = Callable[[int, list[Range], NbdClient], Awaitable[None]]


class DiskCapture:
    """``copy``, ``round`` as often as it pays, ``hold`` once the guest stands still, ``clean_up``, then ``streams``."""

    def __init__(self, machine: Machine, writer: Writer, aside: Path) -> None:
        self._machine = machine
        self._writer = writer
        self._aside = aside
        self._disks = machine.spec.disks
        self._names = [disk.id for disk in self._disks]
        self._unit_bytes = writer.unit_bytes
        self._streams = [Stream.empty(f"disk/{disk.id}", disk.size_bytes) for disk in self._disks]
        self._held: list[list[Range]] = [[] for _ in self._disks]
        self._round = 0
        self.in_use_bytes = 0  # of all disks, known after ``copy``

    async def copy(self) -> None:
        """All that is allocated."""
        if self._names:
            await self._machine.start_tracking(self._names, f"{BITMAP}0")
            self.in_use_bytes = await self._each("", self._store)

    async def round(self) -> int:
        """What was written since the round before: so many bytes."""
        return await self._rotated(self._store)

    async def hold(self) -> int:
        """The last round, of a guest that stands still, read into files aside."""
        return await self._rotated(self._put_aside)

    async def clean_up(self) -> None:
        """Leave the guest's disks as they were."""
        if self._names:
            await forget_rounds(self._machine)

    async def streams(self) -> tuple[Stream, ...]:
        """Store what was held; the disks as they were at that instant."""
        for number, ranges in enumerate(self._held):
            await self._take(number, _read_file(self._aside / str(number), in_pieces(ranges)))
        return tuple(self._streams)

    async def _rotated(self, work: Work) -> int:
        if not self._names:
            return 0
        old, new = f"{BITMAP}{self._round}", f"{BITMAP}{self._round + 1}"
        await self._machine.rotate_tracking(self._names, old, new)
        self._round += 1
        found = await self._each(old, work)
        await self._machine.drop_tracking(self._names, old)
        return found

    async def _each(self, bitmap: str, work: Work) -> int:
        """``work`` on the units of every disk that ``bitmap`` marks, or all that are in use."""
        total = 0
        for number, export in enumerate(await self._machine.export_readable(self._names, bitmap)):
            context = export.bitmap or ALLOCATION
            async with NbdClient.connect(export, contexts=[context]) as disk:
                extents, size_bytes = await disk.extents(context), self._disks[number].size_bytes
                ranges = list(whole_units(extents, context, size_bytes, self._unit_bytes))
                total += sum(length for _, length in ranges)
                await work(number, ranges, disk)
        await self._machine.end_exports()
        return total

    async def _store(self, number: int, ranges: list[Range], disk: NbdClient) -> None:
        await self._take(number, read(disk, in_pieces(ranges)))

    async def _put_aside(self, number: int, ranges: list[Range], disk: NbdClient) -> None:
        self._held[number] = ranges
        self._aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._aside / str(number)).open("wb") as file:
            async for offset, data in read(disk, in_pieces(ranges)):
                await asyncio.to_thread(os.pwrite, file.fileno(), data, offset)

    async def _take(self, number: int, pieces: AsyncIterator[Piece]) -> None:
        """What these parts of a disk hold now, zeros included."""
        self._streams[number] = await self._writer.store(self._streams[number], pieces)


async def forget_rounds(machine: Machine) -> None:
    """End exports and remove bitmaps of a capture, also of one that was broken off."""
    await machine.end_exports()
    for bitmap in await machine.bitmaps_like(BITMAP):
        await machine.drop_tracking([disk.id for disk in machine.spec.disks], bitmap)


async def _read_file(path: Path, pieces: Iterator[Range]) -> AsyncIterator[Piece]:
    """What was put aside."""
    for offset, length in pieces:
        yield offset, await asyncio.to_thread(_read_part, path, offset, length)


def _read_part(path: Path, offset: int, length: int) -> bytes:
    """Holes at the end of a file read as zeros."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length).ljust(length, b"\0")

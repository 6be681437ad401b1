"""A QEMU's outgoing stream: its pages go into a file, everything else is kept for a QEMU that loads it."""

import asyncio
import mmap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from novacron.core.units import MIB, PAGE_BYTES
from novacron.migration.beside import beside
from novacron.migration.errors import StreamRefusedError
from novacron.migration.pipeline import to_the_end
from novacron.migration.qemu_socket import QemuSocket
from novacron.migration.records import NO_DATA
from novacron.migration.stream import DeviceState, Pages, Relay, StreamSplitter

MAX_DEVICE_BYTES: Final = 256 * MIB
_ZEROS: Final = bytes(PAGE_BYTES)


class RamFile:
    """Receives one migration as its destination would; the pages go to ``path``, which has ``ram_bytes`` zeros."""

    def __init__(self, path: Path, ram_bytes: int) -> None:
        self._path = path
        self._splitter = StreamSplitter(ram_bytes=ram_bytes)
        self._ended = asyncio.Event()
        self.device = bytearray()  # the stream without its pages

    async def whole(self) -> None:
        """Return when the source has sent everything and closed."""
        await self._ended.wait()

    @asynccontextmanager
    async def receiving(self, socket: Path) -> AsyncIterator[None]:
        """Listen for a QEMU. An error of the stream ends the body, and is raised."""
        async with QemuSocket.at(socket) as qemu:

            async def take() -> None:
                await qemu.connected()
                with closing(_mapped(self._path)) as ram:
                    await self._take(qemu, ram)
                self._ended.set()

            async with beside(take()):
                yield

    async def _take(self, qemu: QemuSocket, ram: mmap.mmap) -> None:
        """Until QEMU closes. Whether all came is QEMU's to say: ``completed``."""
        while count := await qemu.read_into(self._splitter.room()):
            for item in self._splitter.filled(count):
                match item:
                    case Pages():
                        await to_the_end(_place, ram, item)
                    case Relay():
                        self.device += item.data
                        if len(self.device) > MAX_DEVICE_BYTES:
                            raise StreamRefusedError(f"QEMU's device state exceeds {MAX_DEVICE_BYTES} bytes")
                    case DeviceState():
                        pass  # all pages are in the file


def _place(ram: mmap.mmap, pages: Pages) -> None:
    """In a thread: the later of two versions of a page comes later."""
    for number, position in zip(
        memoryview(pages.numbers).cast("I"), memoryview(pages.positions).cast("I"), strict=True
    ):
        at = number * PAGE_BYTES
        if position != NO_DATA:
            ram[at : at + PAGE_BYTES] = pages.data[position : position + PAGE_BYTES]
        elif ram[at : at + PAGE_BYTES] != _ZEROS:  # what is a hole stays one
            ram[at : at + PAGE_BYTES] = _ZEROS


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)

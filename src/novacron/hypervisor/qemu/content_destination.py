"""A destination that says that it has everything: what a source's QEMU must meet before it gives a post-copy up.

QEMU cannot cancel a post-copy whose connection is broken: it waits for another connection. And it must not cancel one
whose connection lives: where it meets the end of that before it knows that it was cancelled, it waits for another one,
for ever. Over this one it hears that no page is missing, and calls the migration complete; its guest stands still then.

Format: QEMU's ``migration/savevm.c`` and ``migration/migration.c`` of 7.2; integers are big-endian.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.return_path import BITMAP, HAS_EVERYTHING, MESSAGE, RESUMED, TAIL_BYTES, said_everything

COMMAND: Final = struct.Struct(">BHH")  # section type, command, length of what follows
SECTION_COMMAND: Final = 0x08
POSTCOPY_RESUME: Final = 9
RECV_BITMAP: Final = 10
BITMAP_END: Final = 0x0123_4567_89AB_CDEF
BITMAP_UNIT_BYTES: Final = 8
READ_BYTES: Final = 128 * 1024


class ContentDestination:
    """Answers one connection to ``path``; ``blocks`` are the RAM blocks of the machine and their bytes in use."""

    def __init__(self, path: Path, blocks: Mapping[str, int]) -> None:
        self.path = path
        self._blocks = blocks

    @classmethod
    @asynccontextmanager
    async def at(cls, path: Path, blocks: Mapping[str, int]) -> AsyncIterator[Self]:
        """Listen while the context lasts."""
        path.unlink(missing_ok=True)
        self = cls(path, blocks)
        connections: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            await self._answer(reader, writer)

        server = await asyncio.start_unix_server(accept, path)
        try:
            yield self
        finally:
            server.close()
            for connection in connections:
                connection.transport.abort()
            path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """QEMU asks for the bitmap of each block, then whether the other side resumes."""
        command = 0
        while command != POSTCOPY_RESUME:
            section, command, length = COMMAND.unpack(await reader.readexactly(COMMAND.size))
            body = await reader.readexactly(length)
            if section == SECTION_COMMAND and command == RECV_BITMAP:
                writer.write(self._all_of(body[1:].decode()))
        writer.write(MESSAGE.pack(RESUMED, 4) + (1).to_bytes(4, "big"))
        tail = b""
        while data := await reader.read(READ_BYTES):
            tail = (tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
            if said_everything(tail):
                writer.write(HAS_EVERYTHING)

    def _all_of(self, block: str) -> bytes:
        """Its name, and outside the message a bit for each page."""
        name = block.encode()
        pages = self._blocks[block] // PAGE_BYTES
        size = -(-pages // (8 * BITMAP_UNIT_BYTES)) * BITMAP_UNIT_BYTES
        parts = (MESSAGE.pack(BITMAP, len(name) + 1), bytes([len(name)]), name)
        return b"".join((*parts, size.to_bytes(8, "big"), b"\xff" * size, BITMAP_END.to_bytes(8, "big")))


def ram_blocks(table: str) -> dict[str, int]:
    """Bytes in use of each block, of what QEMU's monitor says to ``info ramblock``: name, page, offset, used, total."""
    rows = (line.rsplit(None, 5) for line in table.splitlines()[1:] if line.strip())
    return {name.strip(): int(used, 16) for name, _page, _unit, _offset, used, _total in rows}

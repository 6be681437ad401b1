"""A destination that has received nothing, and reads nothing: what a source's QEMU must meet before it gives up.

QEMU cannot cancel a post-copy whose connection is broken: it waits for another connection. Over this one it hears that
every page is missing, and so goes on sending; then it can be told to stop (``migrate_cancel``).

Format: QEMU's ``migration/savevm.c`` and ``migration/migration.c`` of 7.2; integers are big-endian.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from novacron.core.units import PAGE_BYTES

COMMAND: Final = struct.Struct(">BHH")  # section type, command, length of what follows
SECTION_COMMAND: Final = 0x08
POSTCOPY_RESUME: Final = 9
RECV_BITMAP: Final = 10
MESSAGE: Final = struct.Struct(">HH")  # of the return path: type, length of what follows
SAYS_BITMAP: Final = 5
SAYS_RESUMED: Final = 6
BITMAP_END: Final = 0x0123_4567_89AB_CDEF
BITMAP_UNIT_BYTES: Final = 8


class DeafDestination:
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
        """QEMU asks for the bitmap of each block, then whether the other side resumes; after that nothing is read."""
        command = 0
        while command != POSTCOPY_RESUME:
            section, command, length = COMMAND.unpack(await reader.readexactly(COMMAND.size))
            body = await reader.readexactly(length)
            if section == SECTION_COMMAND and command == RECV_BITMAP:
                writer.write(self._nothing_of(body[1:].decode()))
        writer.write(MESSAGE.pack(SAYS_RESUMED, 4) + (1).to_bytes(4, "big"))

    def _nothing_of(self, block: str) -> bytes:
        """Its name, and outside the message a bit for each page."""
        name = block.encode()
        pages = self._blocks[block] // PAGE_BYTES
        size = -(-pages // (8 * BITMAP_UNIT_BYTES)) * BITMAP_UNIT_BYTES
        parts = (MESSAGE.pack(SAYS_BITMAP, len(name) + 1), bytes([len(name)]), name)
        return b"".join((*parts, size.to_bytes(8, "big"), bytes(size), BITMAP_END.to_bytes(8, "big")))


def ram_blocks(table: str) -> dict[str, int]:
    """Bytes in use of each block, of what QEMU's monitor says to ``info ramblock``: name, page, offset, used, total."""
    rows = (line.rsplit(None, 5) for line in table.splitlines()[1:] if line.strip())
    return {name.strip(): int(used, 16) for name, _page, _unit, _offset, used, _total in rows}

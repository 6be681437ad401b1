"""The migration stream of a VM in memory: in the form of QEMU's, so that the same code takes it apart.

Header, configuration, OPEN_RETURN_PATH, PING, the RAM section (START with the table of one block, PART*, END), one FULL
section that holds the guest's state (u32 length, JSON), EOF. All integers are big-endian.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import Final

from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.errors import QmpError

BLOCK: Final = b"pc.ram"
MACHINE: Final = b"memory"
PART, END = 0x02, 0x03
MAX_STATE_BYTES: Final = 1 << 16
_RAM_SECTION, _GUEST_SECTION = 2, 3
_EOF, _START, _FULL, _CONFIGURATION, _COMMAND, _FOOTER = 0x00, 0x01, 0x04, 0x07, 0x08, 0x7E
_OPEN_RETURN_PATH, _PING = 1, 2
_ZERO, _MEM_SIZE, _PAGE, _EOS = 0x02, 0x04, 0x08, 0x10
_SHUT, _PONG = 1, 2
_END_OF_SECTION: Final = struct.pack(">QBI", _EOS, _FOOTER, _RAM_SECTION)
RETURN: Final = struct.Struct(">HHI")  # of the return path: type, length, value


def begin(ram_bytes: int, *, answered: bool = True) -> bytes:
    """Everything before the first page; ``answered``: with a return path."""
    path = struct.pack(">BHHBHHI", _COMMAND, _OPEN_RETURN_PATH, 0, _COMMAND, _PING, 4, 1)
    return b"".join(
        (
            struct.pack(">II", 0x5145_564D, 3),
            struct.pack(">BI", _CONFIGURATION, len(MACHINE)) + MACHINE,
            path if answered else b"",
            struct.pack(">BI", _START, _RAM_SECTION) + _named(b"ram", version=4),
            struct.pack(">Q", ram_bytes | _MEM_SIZE) + bytes([len(BLOCK)]) + BLOCK + struct.pack(">Q", ram_bytes),
            _END_OF_SECTION,
        )
    )


def pages(kind: int, content: Iterable[tuple[int, bytes]]) -> bytes:
    """A PART or END section of pages by their numbers."""
    records = bytearray(struct.pack(">BI", kind, _RAM_SECTION))
    for number, page in content:
        zero = not any(page)
        records += struct.pack(">Q", number * PAGE_BYTES | (_ZERO if zero else _PAGE)) + bytes([len(BLOCK)]) + BLOCK
        records += b"\0" if zero else page
    return bytes(records) + _END_OF_SECTION


def device(state: bytes) -> bytes:
    """The guest's state, and the end."""
    return b"".join(
        (
            struct.pack(">BI", _FULL, _GUEST_SECTION) + _named(b"guest", version=1),
            struct.pack(">I", len(state)) + state,
            bytes([_EOF]),
        )
    )


async def load(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The guest's state from a stream whose pages went another way; answers what must be answered.

    Raises QmpError for what ``begin``, ``pages`` and ``device`` do not write, asyncio.IncompleteReadError.
    """
    incoming = _Incoming(reader)
    await reader.readexactly(8)
    while True:
        match await incoming.number(1):
            case kind if kind == _CONFIGURATION:
                await reader.readexactly(await incoming.number(4))
            case kind if kind == _COMMAND:
                await incoming.command(writer)
            case kind if kind == _START:
                await incoming.section()
                await reader.readexactly(8 + 1 + len(BLOCK) + 8 + len(_END_OF_SECTION))
            case kind if kind in {PART, END}:
                await incoming.no_pages()
            case kind if kind == _FULL:
                await incoming.section()
                return await reader.readexactly(min(await incoming.number(4), MAX_STATE_BYTES))
            case kind:
                raise QmpError("migrate-incoming", "GenericError", f"a section of type {kind}")


class _Incoming:
    """Parts of a stream that is read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def number(self, count: int) -> int:
        return int.from_bytes(await self._reader.readexactly(count), "big")

    async def section(self) -> None:
        """The head of a section: its id, its name with instance and version."""
        await self.number(4)
        await self._reader.readexactly(await self.number(1) + 8)

    async def command(self, writer: asyncio.StreamWriter) -> None:
        command, data = await self.number(2), await self._reader.readexactly(await self.number(2))
        if command == _PING:
            writer.write(RETURN.pack(_PONG, 4, int.from_bytes(data, "big")))

    async def no_pages(self) -> None:
        await self.number(4)
        if await self._reader.readexactly(len(_END_OF_SECTION)) != _END_OF_SECTION:
            raise QmpError("migrate-incoming", "GenericError", "pages in a stream whose RAM is a file")


def loaded() -> bytes:
    """The last word of the return path: all is here."""
    return RETURN.pack(_SHUT, 4, 0)


async def until_loaded(reader: asyncio.StreamReader) -> None:
    """Read the return path up to its last word; raises QmpError, asyncio.IncompleteReadError."""
    while True:
        kind, _, value = RETURN.unpack(await reader.readexactly(RETURN.size))
        if kind == _SHUT:
            if value:
                raise QmpError("migrate", "GenericError", "the destination could not load")
            return


def _named(name: bytes, *, version: int) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">II", 0, version)

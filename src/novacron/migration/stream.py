"""QEMU's migration stream, taken apart: guest RAM on one side, everything else on the other.

The source's QEMU writes the stream to a socket of ours. ``StreamSplitter`` takes the pages of the main RAM block out of
it and rebuilds a smaller stream around the rest (header, block table, ROM pages, device state), which the destination's
QEMU loads while the pages reach its RAM through a file. From the first device section on the stream is opaque: those
bodies carry no length, and nothing in them is ours to read.

Format: QEMU's ``migration/savevm.c`` and ``migration/ram.c`` of 7.2; all integers are big-endian. What is not known is
refused (``StreamRefusedError``), before the guest stops.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from novacron.core.units import PAGE_BYTES
from novacron.migration.errors import StreamRefusedError
from novacron.migration.records import NO_DATA, RamScan, StopReason, scan_ram_records

MAGIC: Final = 0x5145_564D
VERSION: Final = 3

SECTION_EOF: Final = 0x00
SECTION_START: Final = 0x01
SECTION_PART: Final = 0x02
SECTION_END: Final = 0x03
SECTION_FULL: Final = 0x04
SECTION_SUBSECTION: Final = 0x05
SECTION_VMDESC: Final = 0x06
SECTION_CONFIGURATION: Final = 0x07
SECTION_COMMAND: Final = 0x08
SECTION_FOOTER: Final = 0x7E

RAM_SECTION_VERSION: Final = 4
FLAG_MEM_SIZE: Final = 0x04
FLAG_EOS: Final = 0x10
FLAG_ZERO: Final = 0x02
FLAG_PAGE: Final = 0x08
FLAG_BITS: Final = 0xFFF

COMMAND_OPEN_RETURN_PATH: Final = 1
COMMAND_PING: Final = 2
COMMAND_POSTCOPY_ADVISE: Final = 3
RELAYED_COMMANDS: Final = frozenset({COMMAND_OPEN_RETURN_PATH, COMMAND_PING, COMMAND_POSTCOPY_ADVISE, 11})

MAX_CONFIGURATION_BYTES: Final = 64 * 1024
MAX_BLOCKS: Final = 64
ROOM_BYTES: Final = 1 << 20
MAX_WAITING_BYTES: Final = 1 << 20  # what may lie unread between two reads: one table of blocks at the most


@dataclass(frozen=True, slots=True)
class Relay:
    """Bytes for the destination's QEMU, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of the main RAM block, in order.

    ``numbers``: u32 little-endian page numbers; ``positions``: u32 little-endian offsets of the page's 4,096 bytes in
    ``data``, or ``NO_DATA`` for a page of zeros. ``data`` is the buffer that the stream was read into: nobody writes to
    it any more.
    """

    numbers: bytes
    positions: bytes
    data: memoryview


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The guest is stopped and its RAM is complete: all that follows is device state."""


Item = Relay | Pages | DeviceState


class _At(Enum):
    HEADER = auto()
    SECTION = auto()
    RAM = auto()
    FOOTER = auto()
    OPAQUE = auto()


class _Incomplete(Exception):  # noqa: N818 - a signal inside this file: wait for more bytes
    """The next part has not arrived whole."""


class _Cursor:
    """A reading position that says ``_Incomplete`` instead of reading past the end."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise _Incomplete
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def name(self) -> bytes:
        return self.take(self.integer(1))


class StreamSplitter:
    """Takes a pre-copy stream apart as it arrives.

    The stream is read into ``room``, and ``filled`` gives the items that what was read completes: pages are looked at
    where they lie, in a buffer that is not used again. At most ``MAX_WAITING_BYTES`` wait between two calls.
    ``main_block`` is the RAM block that moves through the file, and has exactly ``ram_bytes``.
    """

    def __init__(self, *, ram_bytes: int, main_block: bytes = b"pc.ram") -> None:
        self._ram_bytes = ram_bytes
        self._main_block = main_block
        self._at = _At.HEADER
        self._buffer = memoryview(bytearray(ROOM_BYTES))
        self._end = 0  # of what lies in it
        self._waiting = self._buffer[:0]
        self._names: list[bytes] = []
        self._lengths: list[int] = []
        self._main = -1
        self._ram_section: int | None = None
        self._section_start = b""  # of the RAM section under way, until it turned out to be worth relaying
        self._section_type = SECTION_START
        self._section_id = 0
        self._current_block = -1

    @property
    def opaque(self) -> bool:
        """Whether the device state has begun."""
        return self._at is _At.OPAQUE

    def room(self) -> memoryview:
        """Where the next bytes of the stream go."""
        return self._buffer[self._end :]

    def filled(self, count: int) -> list[Item]:
        """Items that ``count`` bytes more in ``room`` complete; raises StreamRefusedError."""
        self._end += count
        self._waiting = self._buffer[: self._end]
        if self._at is _At.OPAQUE:
            opaque, self._end = Relay(bytes(self._waiting)), 0
            return [opaque]
        items: list[Item] = []
        position = 0
        try:
            while position < self._end:
                position = self._step(position, items)
        except _Incomplete:
            pass
        self._keep_from(position, read_from=any(isinstance(item, Pages) for item in items))
        return _joined(items)

    def _keep_from(self, position: int, *, read_from: bool) -> None:
        """What is not taken yet goes to the front; of another buffer, when items read from this one."""
        waiting = self._waiting[position:]
        if len(waiting) > MAX_WAITING_BYTES:
            raise StreamRefusedError("QEMU sent a part of its stream that does not end within its bounds")
        if read_from or len(self._buffer) < len(waiting) + ROOM_BYTES:
            self._buffer = memoryview(bytearray(len(waiting) + ROOM_BYTES))
        self._buffer[: len(waiting)] = waiting
        self._end = len(waiting)

    def _step(self, position: int, items: list[Item]) -> int:
        """One part from ``position`` on: what it gives goes to ``items``; the position after it."""
        if self._at is _At.RAM:
            return self._ram_body(position, items)
        cursor = _Cursor(self._waiting, position)
        if self._at is _At.HEADER:
            self._header(cursor)
        elif self._at is _At.FOOTER:
            self._footer(cursor)
            if not self._section_start:
                items.append(Relay(bytes(self._waiting[position : cursor.at])))
            self._section_start = b""
            return cursor.at
        elif not self._section(cursor, items):
            return cursor.at
        items.append(Relay(bytes(self._waiting[position : cursor.at])))
        if self._at is _At.OPAQUE:
            items[-1:] = [DeviceState(), Relay(bytes(self._waiting[position:]))]
            return self._end
        return cursor.at

    def _header(self, cursor: _Cursor) -> None:
        magic, version = cursor.integer(4), cursor.integer(4)
        if (magic, version) != (MAGIC, VERSION):
            raise StreamRefusedError(f"not a QEMU migration stream of version {VERSION}: {magic:#x} {version}")
        self._at = _At.SECTION

    def _section(self, cursor: _Cursor, items: list[Item]) -> bool:
        """Read the start of a section; False when it holds nothing to relay (its start is kept)."""
        match kind := cursor.integer(1):
            case _ if kind == SECTION_CONFIGURATION:
                self._configuration(cursor)
            case _ if kind == SECTION_COMMAND:
                self._command(cursor)
            case _ if kind in {SECTION_START, SECTION_PART, SECTION_END}:
                self._ram_start(kind, cursor)
                if kind == SECTION_START:
                    items.append(Relay(self._section_start))
                    self._section_start = b""
                return False
            case _ if kind == SECTION_FULL:
                if self._ram_section is None:
                    raise StreamRefusedError(
                        "a device saves state before RAM does (virtio-mem?): this VM cannot be streamed",
                        next_command="remove the device, or move the VM while it is stopped",
                    )
                self._at = _At.OPAQUE
            case _:
                raise StreamRefusedError(f"unknown section type {kind:#x} in QEMU's stream")
        return True

    def _configuration(self, cursor: _Cursor) -> None:
        length = cursor.integer(4)
        if length > MAX_CONFIGURATION_BYTES:
            raise StreamRefusedError(f"a machine name of {length} bytes")
        cursor.take(length)
        if cursor.data[cursor.at : cursor.at + 1] == bytes([SECTION_SUBSECTION]):
            raise StreamRefusedError("the stream's configuration has subsections, which this version does not read")
        if cursor.at == len(cursor.data):
            raise _Incomplete  # a subsection may follow: the next byte tells

    def _command(self, cursor: _Cursor) -> None:
        command, length = cursor.integer(2), cursor.integer(2)
        if command not in RELAYED_COMMANDS:
            raise StreamRefusedError(f"command {command} in QEMU's stream is not one of a pre-copy")
        cursor.take(length)

    def _ram_start(self, kind: int, cursor: _Cursor) -> None:
        start = cursor.at - 1
        section = cursor.integer(4)
        if kind == SECTION_START:
            name, _instance, version = cursor.name(), cursor.integer(4), cursor.integer(4)
            if name != b"ram" or version != RAM_SECTION_VERSION or self._ram_section is not None:
                raise StreamRefusedError(f"section {name.decode(errors='replace')!r} version {version} is not known")
            self._ram_section = section
        elif section != self._ram_section:
            raise StreamRefusedError(f"section {section} is not the RAM section")
        self._section_type, self._section_id = kind, section
        self._section_start = bytes(cursor.data[start : cursor.at])
        self._at = _At.RAM

    def _footer(self, cursor: _Cursor) -> None:
        if cursor.integer(1) != SECTION_FOOTER or cursor.integer(4) != self._section_id:
            raise StreamRefusedError("a RAM section does not end with its footer")
        self._at = _At.SECTION

    def _ram_body(self, position: int, items: list[Item]) -> int:
        """Records of a RAM section until its end or the end of what has arrived."""
        scan = scan_ram_records(self._waiting, position, self._current_block, self._lengths, self._names)
        self._current_block = scan.current_block
        self._give(scan, items)
        match scan.reason:
            case StopReason.NEED_MORE:
                if scan.position == position:
                    raise _Incomplete
                return scan.position
            case StopReason.EOS:
                self._end_of_section(items)
                return scan.position
            case StopReason.MEM_SIZE:
                cursor = _Cursor(self._waiting, scan.position)
                self._block_table(cursor)
                items.append(Relay(bytes(self._waiting[scan.position : cursor.at])))
                return cursor.at
            case _:
                raise StreamRefusedError(
                    f"QEMU's stream has a RAM record that this version does not know ({scan.detail})"
                )

    def _end_of_section(self, items: list[Item]) -> None:
        dropped = bool(self._section_start) and self._section_type == SECTION_PART
        if not dropped:
            items.extend(Relay(part) for part in (self._section_start, FLAG_EOS.to_bytes(8, "big")) if part)
            self._section_start = b""
        self._at = _At.FOOTER

    def _block_table(self, cursor: _Cursor) -> None:
        total = cursor.integer(8) & ~FLAG_BITS
        names: list[bytes] = []
        lengths: list[int] = []
        while sum(lengths) < total:
            if len(names) == MAX_BLOCKS:
                raise StreamRefusedError(f"more than {MAX_BLOCKS} RAM blocks")
            names.append(cursor.name())
            lengths.append(cursor.integer(8))
            if lengths[-1] == 0 or lengths[-1] % PAGE_BYTES:
                raise StreamRefusedError(f"RAM block {names[-1].decode(errors='replace')!r} has {lengths[-1]} bytes")
        if sum(lengths) != total or names.count(self._main_block) != 1:
            raise StreamRefusedError("the table of RAM blocks does not add up")
        self._main = names.index(self._main_block)
        if lengths[self._main] != self._ram_bytes:
            raise StreamRefusedError(f"the guest's RAM has {lengths[self._main]} bytes, not {self._ram_bytes}")
        self._names, self._lengths = names, lengths

    def _give(self, scan: RamScan, items: list[Item]) -> None:
        """Pages of the main block as one item; others as records of their own."""
        if not scan.blocks:
            return
        base = self._waiting
        positions = memoryview(scan.positions).cast("I")
        numbers = memoryview(scan.pages).cast("I")
        if scan.blocks.count(self._main) == len(scan.blocks):
            items.append(Pages(scan.pages, scan.positions, base))
            return
        main = [i for i, block in enumerate(scan.blocks) if block == self._main]
        if main:
            items.append(Pages(_select(numbers, main), _select(positions, main), base))
        others = (i for i, block in enumerate(scan.blocks) if block != self._main)
        if self._section_start:
            items.append(Relay(self._section_start))
            self._section_start = b""
        items.extend(self._record(scan.blocks[i], numbers[i], positions[i], base) for i in others)

    def _record(self, block: int, number: int, position: int, data: memoryview) -> Relay:
        """One page of another block, with its name written out: no record leans on the one before."""
        name = self._names[block]
        flag = FLAG_ZERO if position == NO_DATA else FLAG_PAGE
        body = b"\0" if position == NO_DATA else data[position : position + PAGE_BYTES]
        return Relay(b"".join(((number * PAGE_BYTES | flag).to_bytes(8, "big"), bytes([len(name)]), name, body)))


def _select(values: memoryview, chosen: list[int]) -> bytes:
    return b"".join(values[i].to_bytes(4, "little") for i in chosen)


def _joined(items: list[Item]) -> list[Item]:
    """The same in few: what a read completes of pages, then of all else, and then of what follows the guest's stop.

    Pages and relays need keep their order only each among themselves until the device state begins.
    """
    end = next((i for i, item in enumerate(items) if isinstance(item, DeviceState)), len(items))
    return [*_pages(items[:end]), *_relay(items[:end]), *items[end : end + 1], *_relay(items[end:])]


def _pages(items: list[Item]) -> Iterator[Pages]:
    """All of one buffer, at once."""
    if parts := [item for item in items if isinstance(item, Pages)]:
        yield Pages(b"".join(p.numbers for p in parts), b"".join(p.positions for p in parts), parts[0].data)


def _relay(items: list[Item]) -> Iterator[Relay]:
    if parts := [item.data for item in items if isinstance(item, Relay)]:
        yield Relay(b"".join(parts))

"""A small writer of QEMU's migration stream, and what must come out: the model that the parser is held against."""

import struct
from dataclasses import dataclass, field

PAGE = 4096
MAIN, ROM = b"pc.ram", b"pc.rom"
ZERO, MEM_SIZE, PAGE_FLAG, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
SECTION = 2


@dataclass
class Written:
    """A stream as QEMU writes it; ``pages`` are those of the main block in order, None for zeros."""

    main_pages: int = 8
    rom_pages: int = 2
    data: bytearray = field(default_factory=bytearray)
    relayed: bytearray = field(default_factory=bytearray)
    pages: list[tuple[int, bytes | None]] = field(default_factory=list)
    _last: bytes = b""

    def both(self, data: bytes) -> None:
        """Bytes that the destination's QEMU gets, too."""
        self.data += data
        self.relayed += data

    def begin(self, *, ping: bool = True) -> "Written":
        """Header, configuration, commands, the start of the RAM section with its table."""
        self.both(struct.pack(">II", 0x5145564D, 3))
        self.both(b"\x07" + struct.pack(">I", 10) + b"pc-q35-7.2")
        self.both(b"\x08" + struct.pack(">HH", 1, 0))
        if ping:
            self.both(b"\x08" + struct.pack(">HHI", 2, 4, 1))
        self.both(b"\x01" + struct.pack(">IB3sII", SECTION, 3, b"ram", 0, 4))
        total = (self.main_pages + self.rom_pages) * PAGE
        self.both(struct.pack(">Q", total | MEM_SIZE))
        for name, pages in ((MAIN, self.main_pages), (ROM, self.rom_pages)):
            self.both(bytes([len(name)]) + name + struct.pack(">Q", pages * PAGE))
        self.both(struct.pack(">Q", EOS))
        self.both(b"\x7e" + struct.pack(">I", SECTION))
        return self

    def part(self, records: list[tuple[bytes, int, bytes | None]], *, last: bool = False) -> "Written":
        """One PART (or END) section with records (block, page, content or None for zeros)."""
        head = (b"\x03" if last else b"\x02") + struct.pack(">I", SECTION)
        foot = struct.pack(">Q", EOS) + b"\x7e" + struct.pack(">I", SECTION)
        self.data += head
        kept = bytearray()
        for block, page, content in records:
            flags = (ZERO if content is None else PAGE_FLAG) | (CONTINUE if block == self._last else 0)
            name = b"" if block == self._last else bytes([len(block)]) + block
            body = b"\0" if content is None else content
            self.data += struct.pack(">Q", page * PAGE | flags) + name + body
            self._last = block
            if block == MAIN:
                self.pages.append((page, content))
            else:
                kept += struct.pack(">Q", page * PAGE | flags & ~CONTINUE) + bytes([len(block)]) + block + body
        self.data += foot
        if kept or last:
            self.relayed += head + kept + foot
        return self

    def end(self, state: bytes = b"anything \x02\x03 at all") -> "Written":
        """Device state: opaque."""
        self.both(b"\x04" + state)
        return self

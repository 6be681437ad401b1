"""What runs in a VM in memory: a stand-in that works like the demo guest, and would notice the same losses.

It changes pages of its RAM and appends records to its first disk. It does so when it is looked at, not by itself: a
thousand of them cost nothing while nobody looks, and two runs of a test do the same.
"""

import mmap
import struct
from typing import Final

import msgspec
from msgspec import Struct

from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.memory.disk import BLOCK_BYTES, MemoryDisk

HOT_PAGES: Final = 32
COLD_PAGES: Final = 32
RECORDS_A_BLOCK: Final = 16  # records lie apart, so that a few of them make several blocks dirty
RECORD: Final = struct.Struct(">QQ")  # number, check
_PAGE: Final = struct.Struct(">QQ")
_MULTIPLIER: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


class GuestState(Struct, frozen=True):
    """What a guest keeps in its registers: it moves as device state."""

    seed: int
    ticks: int = 0  # pages changed
    records: int = 0


class Found(Struct, frozen=True):
    """A guest's verdict on itself, as the demo guest says it."""

    check: str
    errors: int
    pages: int
    records: int
    lost: int
    doubled: int


class MemoryGuest:
    """Works on ``ram`` and ``disk``; ``dirty`` are numbers of pages changed since somebody cleared it."""

    def __init__(self, ram: mmap.mmap, disk: MemoryDisk | None, state: GuestState) -> None:
        self._ram = ram
        self._disk = disk
        self.state = state
        self.dirty: set[int] = set()

    def boot(self) -> None:
        """Fill the pages that never change; records of an earlier life are gone on from."""
        for page in range(HOT_PAGES, HOT_PAGES + COLD_PAGES):
            self._write_page(page, 0)
        self.state = msgspec.structs.replace(self.state, records=self._kept())

    def work(self, ticks: int = 1) -> None:
        """Change ``ticks`` pages and append one record."""
        for _ in range(ticks):
            self.state = msgspec.structs.replace(self.state, ticks=self.state.ticks + 1)
            self._write_page(self.state.ticks % HOT_PAGES, self.state.ticks)
        if self._disk is not None and self._at(self.state.records) + RECORD.size <= self._disk.size_bytes:
            number = self.state.records
            self._disk.write(self._at(number), RECORD.pack(number, self._mix(number)))
            self.state = msgspec.structs.replace(self.state, records=number + 1)

    def check(self, tag: str) -> Found:
        """Compare everything with what it must be."""
        ticks, records = self.state.ticks, self.state.records
        wrong = 0
        for page in range(HOT_PAGES):
            last = ticks - (ticks - page) % HOT_PAGES
            wrong += last > 0 and not self._is_page(page, last)
        wrong += sum(not self._is_page(page, 0) for page in range(HOT_PAGES, HOT_PAGES + COLD_PAGES))
        kept = self._kept()
        return Found(tag, wrong, HOT_PAGES + COLD_PAGES, records, max(0, records - kept), max(0, kept - records))

    def _kept(self) -> int:
        """Records on the disk, whole and in order."""
        number = 0
        while self._disk is not None and self._at(number) + RECORD.size <= self._disk.size_bytes:
            if self._disk.read(self._at(number), RECORD.size) != RECORD.pack(number, self._mix(number)):
                break
            number += 1
        return number

    def _at(self, number: int) -> int:
        return number * (BLOCK_BYTES // RECORDS_A_BLOCK)

    def _mix(self, value: int) -> int:
        return ((value + self.state.seed + 1) * _MULTIPLIER) & _MASK

    def _write_page(self, page: int, version: int) -> None:
        at = page * PAGE_BYTES
        self._ram[at : at + _PAGE.size] = _PAGE.pack(version, self._mix(page << 32 ^ version))
        self.dirty.add(page)

    def _is_page(self, page: int, version: int) -> bool:
        at = page * PAGE_BYTES
        return self._ram[at : at + PAGE_BYTES] == _PAGE.pack(version, self._mix(page << 32 ^ version)).ljust(
            PAGE_BYTES, b"\0"
        )

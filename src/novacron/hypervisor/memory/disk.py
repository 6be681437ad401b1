"""A disk in memory: blocks that were written, and bitmaps of those written since."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from novacron.hypervisor.errors import QmpError
from novacron.hypervisor.nbd.messages import ALLOCATION, DIRTY, HOLE, ZERO, Extent

BLOCK_BYTES: Final = 64 * 1024  # also what one bit of a bitmap stands for
FlagsOfBlock = Callable[[int], int]
_EMPTY: Final = bytes(BLOCK_BYTES)


@dataclass(slots=True)
class Bitmap:
    """Numbers of blocks written while it was enabled."""

    persistent: bool = False
    enabled: bool = True
    marked: set[int] = field(default_factory=set)


class MemoryDisk:
    """Reads as zeros where nothing was written. Every write marks the bitmaps that are enabled."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.bitmaps: dict[str, Bitmap] = {}
        self._blocks: dict[int, bytes] = {}

    def copy(self, size_bytes: int) -> "MemoryDisk":
        """The same content from here on apart; no bitmaps. Costs nothing a byte: blocks are never changed in place."""
        copied = MemoryDisk(size_bytes)
        copied._blocks = dict(self._blocks)
        return copied

    def forget_bitmaps(self) -> None:
        """What an instance's end leaves: those that are persistent."""
        self.bitmaps = {name: bitmap for name, bitmap in self.bitmaps.items() if bitmap.persistent}

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""
        first, last = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        whole = b"".join(self._blocks.get(number, _EMPTY) for number in range(first, last))
        return whole[offset - first * BLOCK_BYTES :][:length]

    def write(self, offset: int, data: bytes) -> None:
        """Write, and mark."""
        at = 0
        while at < len(data):
            number, within = divmod(offset + at, BLOCK_BYTES)
            piece = data[at : at + BLOCK_BYTES - within]
            old = self._blocks.get(number, _EMPTY)
            self._put(number, old[:within] + piece + old[within + len(piece) :])
            at += len(piece)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make it read as zeros; whole blocks are forgotten."""
        end = offset + length
        while offset < end:
            piece = min(end, (offset // BLOCK_BYTES + 1) * BLOCK_BYTES) - offset
            self.write(offset, bytes(piece))
            offset += piece

    def track(self, name: str, *, persistent: bool = False, enabled: bool = True) -> Bitmap:
        """Begin a bitmap; raises QmpError when there is one of that name."""
        if name in self.bitmaps:
            raise QmpError("block-dirty-bitmap-add", "GenericError", f"Bitmap already exists: {name}")
        bitmap = self.bitmaps[name] = Bitmap(persistent, enabled)
        return bitmap

    def bitmap(self, name: str) -> Bitmap:
        """Raises QmpError."""
        try:
            return self.bitmaps[name]
        except KeyError:
            raise QmpError("block-dirty-bitmap", "GenericError", f"Dirty bitmap '{name}' not found") from None

    def extents(self, flags_of_block: FlagsOfBlock, offset: int, length: int) -> list[Extent]:
        """Neighbours of equal flags joined, from ``offset`` to the end of ``length``."""
        found: list[Extent] = []
        while length:
            number = offset // BLOCK_BYTES
            piece = min(length, (number + 1) * BLOCK_BYTES - offset)
            flags = flags_of_block(number)
            if found and found[-1].flags == flags:
                found[-1] = replace(found[-1], length=found[-1].length + piece)
            else:
                found.append(Extent(offset, piece, flags))
            offset, length = offset + piece, length - piece
        return found

    def holds(self, number: int) -> bool:
        """Whether anything is stored for a block."""
        return number in self._blocks

    def _put(self, number: int, block: bytes) -> None:
        if block == _EMPTY:
            self._blocks.pop(number, None)
        else:
            self._blocks[number] = block
        for bitmap in self.bitmaps.values():
            if bitmap.enabled:
                bitmap.marked.add(number)


class DiskView:
    """A disk as it is exported, perhaps with one bitmap as a context; see ``nbd.server.BlockDevice``."""

    def __init__(self, disk: MemoryDisk, *, writable: bool, bitmap: str = "") -> None:
        self._disk = disk
        self._dirty = {f"qemu:dirty-bitmap:{bitmap}": disk.bitmap(bitmap)} if bitmap else {}
        self.size_bytes = disk.size_bytes
        self.writable = writable
        self.read = disk.read
        self.write = disk.write
        self.write_zeroes = disk.write_zeroes

    def contexts(self) -> Iterable[str]:
        """What is stored, and what the bitmap marks."""
        return (ALLOCATION, *self._dirty)

    def extents(self, context: str, offset: int, length: int) -> list[Extent]:
        """By blocks."""
        if context == ALLOCATION:
            return self._disk.extents(lambda n: 0 if self._disk.holds(n) else HOLE | ZERO, offset, length)
        marked = self._dirty[context].marked
        return self._disk.extents(lambda n: DIRTY if n in marked else 0, offset, length)

"""What lies at the destination already: told by digests, so that only the rest is sent.

An attempt that broke off, a VM that was there before and has gone on elsewhere: whatever it is, 16 bytes a 4 KiB block
say it, and most of them compress to nothing (blocks of zeros).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from novacron.content.blocks import UNKNOWN, BlockEncoder
from novacron.content.codec import decode, encode
from novacron.content.digest import DIGEST_BYTES
from novacron.core.units import MIB, PAGE_BYTES
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, ZERO, Extent
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import KNOWN_BYTES, Known

RAM: Final = -1
READ_BYTES: Final = 4 * MIB
LEVEL: Final = 1


def tell(disk: int, digests: bytes) -> Iterator[Known]:
    """Frames for the digests of a whole disk, or of RAM."""
    for at in range(0, len(digests), KNOWN_BYTES):
        yield Known(disk, at // DIGEST_BYTES, encode(digests[at : at + KNOWN_BYTES], LEVEL))


async def digests_of_disk(disk: NbdClient, key: bytes) -> bytes:
    """Digests of all its blocks; what is not stored is not read. The client must have the allocation's context."""
    index = BlockEncoder(disk.size_bytes, key, fresh=True)
    for extent in await disk.extents(ALLOCATION):
        if not extent.flags & ZERO:
            for at in range(extent.offset, extent.offset + extent.length, READ_BYTES):
                length = min(READ_BYTES, extent.offset + extent.length - at)
                index.encode([(at, length)], await disk.read(at, length))
    return index.digests()


def except_for(digests: bytes, extents: Iterable[Extent]) -> bytes:
    """Those digests of a disk, but none of the blocks of ``extents``."""
    rest = bytearray(digests)
    for extent in extents:
        first, count = extent.offset // PAGE_BYTES, -(-extent.length // PAGE_BYTES)
        rest[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES] = UNKNOWN * count
    return bytes(rest)


class KnownContent:
    """Collects what a destination tells, at the source. ``blocks`` is how many RAM and each disk have."""

    def __init__(self, blocks: dict[int, int]) -> None:
        self._blocks = blocks
        self._told: dict[int, bytearray] = {}

    def add(self, frame: Known) -> None:
        """The next part; raises ChannelProtocolError, MalformedContentError."""
        told = self._told.setdefault(frame.disk, bytearray())
        digests = decode(frame.digests, KNOWN_BYTES)
        after = (len(told) + len(digests)) // DIGEST_BYTES
        if frame.first * DIGEST_BYTES != len(told) or after > self._blocks.get(frame.disk, 0):
            raise ChannelProtocolError("the destination tells of content that cannot be there")
        told += digests

    def of(self, disk: int) -> bytes:
        """All that was told of a disk, or of RAM; empty when nothing was. Raises ChannelProtocolError for a part."""
        told = self._told.get(disk)
        if told is not None and len(told) != self._blocks[disk] * DIGEST_BYTES:
            raise ChannelProtocolError("the destination tells of a part of its content only")
        return bytes(told or b"")

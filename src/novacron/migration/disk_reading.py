"""Reading what a repository is to have of a disk: whole units of its chunker, a few reads ahead."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final

from novacron.core.units import MIB
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, DIRTY, ZERO, Extent
from novacron.repository.regions import Piece

READ_BYTES: Final = MIB
READS_IN_FLIGHT: Final = 4
Range = tuple[int, int]  # first byte and length: whole units of the chunker


def whole_units(extents: Iterable[Extent], context: str, size_bytes: int, unit_bytes: int) -> Iterator[Range]:
    """Units that wanted extents touch, neighbours joined."""
    first = end = 0
    for extent in extents:
        if bool(extent.flags & ZERO) if context == ALLOCATION else not extent.flags & DIRTY:
            continue
        begins = extent.offset // unit_bytes * unit_bytes
        if begins > end:
            if end > first:
                yield first, end - first
            first = begins
        end = min(size_bytes, -(-(extent.offset + extent.length) // unit_bytes) * unit_bytes)
    if end > first:
        yield first, end - first


def in_pieces(ranges: Iterable[Range]) -> Iterator[Range]:
    """Cut into what one read asks for."""
    for offset, length in ranges:
        for at in range(offset, offset + length, READ_BYTES):
            yield at, min(READ_BYTES, offset + length - at)


async def read(disk: NbdClient, pieces: Iterator[Range]) -> AsyncIterator[Piece]:
    """A few reads ahead."""
    reads: deque[tuple[int, asyncio.Task[bytes]]] = deque()

    def read_on(count: int) -> None:
        reads.extend((at, asyncio.create_task(disk.read(at, length))) for at, length in islice(pieces, count))

    read_on(READS_IN_FLIGHT)
    try:
        while reads:
            yield reads[0][0], await reads[0][1]
            reads.popleft()
            read_on(1)
    finally:
        for _, reading in reads:
            reading.cancel()
        await asyncio.gather(*(reading for _, reading in reads), return_exceptions=True)

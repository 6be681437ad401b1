"""Regions: parts of a stream, 4 MiB each, and the page of each one, which says what chunks make it up.

page  = span* (u16 little-endian), id* (32 bytes each)
span  = first block of a chunk within the region (10 bits), number of its blocks less one (6 bits)

A block has 4 KiB; what is in no chunk is zeros. Pages are stored as chunks are, so a region that has not changed costs
a manifest 32 bytes and nothing else. No chunk lies in two regions.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from novacron.core.errors import InternalError
from novacron.core.units import MIB, PAGE_BYTES
from novacron.repository.chunks import ID_BYTES
from novacron.repository.errors import DamagedError

REGION_BYTES: Final = 4 * MIB
REGION_BLOCKS: Final = REGION_BYTES // PAGE_BYTES
NO_PAGE: Final = bytes(ID_BYTES)  # of a region of zeros
_SPAN_BYTES: Final = 2
_LENGTH_BITS: Final = 6

Piece = tuple[int, bytes]  # offset and content
Run = tuple[int, bytes | memoryview]  # offset within a region, and content


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk in its region: bytes from ``first`` to ``end``; a stream may end before."""

    first: int
    end: int
    identity: bytes


@dataclass(slots=True)
class NewContent:
    """What a region holds now, in parts of it or in the whole."""

    region: int
    runs: list[Run] = field(default_factory=list)


def regions_of(size_bytes: int) -> int:
    """How many regions a stream of this size has."""
    return -(-size_bytes // REGION_BYTES)


def make_page(parts: Iterable[Part]) -> bytes:
    """Of parts in their order."""
    spans, ids = bytearray(), bytearray()
    for part in parts:
        first, blocks = part.first // PAGE_BYTES, -(-(part.end - part.first) // PAGE_BYTES)
        spans += (first << _LENGTH_BITS | blocks - 1).to_bytes(_SPAN_BYTES, "little")
        ids += part.identity
    return bytes(spans + ids)


def read_page(page: bytes) -> list[Part]:
    """Its parts, in order; raises DamagedError when they cannot be."""
    count, rest = divmod(len(page), _SPAN_BYTES + ID_BYTES)
    parts, at = [], 0
    for number in range(count):
        span = int.from_bytes(page[number * _SPAN_BYTES : (number + 1) * _SPAN_BYTES], "little")
        first = (span >> _LENGTH_BITS) * PAGE_BYTES
        end = first + ((span & ((1 << _LENGTH_BITS) - 1)) + 1) * PAGE_BYTES
        begins = count * _SPAN_BYTES + number * ID_BYTES
        if first < at or end > REGION_BYTES:
            break
        parts.append(Part(first, end, page[begins : begins + ID_BYTES]))
        at = end
    if rest or len(parts) != count:
        raise DamagedError("a page of a manifest says what cannot be")
    return parts


def without(parts: Sequence[Part], runs: Iterable[Run]) -> list[Part]:
    """Those that no run replaces; raises InternalError when a run ends within one."""
    kept = list(parts)
    for first, content in runs:
        end = -(-(first + len(content)) // PAGE_BYTES) * PAGE_BYTES
        replaced = [part for part in kept if part.end > first and part.first < end]
        if any(part.first < first or part.end > end for part in replaced):
            raise InternalError("new content begins or ends within a chunk")
        kept = [part for part in kept if part.end <= first or part.first >= end]
    return kept


async def by_regions(pieces: AsyncIterator[Piece]) -> AsyncIterator[NewContent]:
    """What comes in ascending order, gathered region by region; raises as ``pieces`` does."""
    number, end, gathered = -1, 0, list[tuple[int, list[memoryview]]]()
    async for offset, data in pieces:
        view, at = memoryview(data), 0  # nothing is copied before a region is whole
        while at < len(view):
            region, within = divmod(offset + at, REGION_BYTES)
            part = view[at : at + REGION_BYTES - within]
            at += len(part)
            if region != number:
                if gathered:
                    yield _joined(number, gathered)
                number, gathered = region, []
            if not gathered or within != end:
                gathered.append((within, []))
            gathered[-1][1].append(part)
            end = within + len(part)
    if gathered:
        yield _joined(number, gathered)


def _joined(region: int, gathered: list[tuple[int, list[memoryview]]]) -> NewContent:
    return NewContent(region, [(first, parts[0] if len(parts) == 1 else b"".join(parts)) for first, parts in gathered])

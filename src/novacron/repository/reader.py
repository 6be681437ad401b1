"""Reading a stream back: regions are fetched and unpacked in threads, ahead of whoever takes them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from novacron.repository.errors import DamagedError
from novacron.repository.manifest import Stream
from novacron.repository.regions import NO_PAGE, REGION_BYTES, Piece, regions_of
from novacron.repository.repository import Repository

AHEAD: Final = 4  # regions: two more than are unpacked, so that none waits for the store


async def pieces(repository: Repository, stream: Stream) -> AsyncIterator[Piece]:
    """Offsets and contents of all that is not zeros, in order, at most 4 MiB each; raises as ``chunks`` does."""
    waiting: deque[asyncio.Task[list[Piece]]] = deque()
    try:
        for region, _ in stream.filled():
            waiting.append(asyncio.create_task(asyncio.to_thread(_filled, repository, stream, region, 0, REGION_BYTES)))
            if len(waiting) == AHEAD:
                for piece in await waiting[0]:
                    yield piece
                waiting.popleft()
        while waiting:
            for piece in await waiting[0]:
                yield piece
            waiting.popleft()
    finally:
        await asyncio.gather(*waiting, return_exceptions=True)


def read(repository: Repository, stream: Stream, offset: int, length: int) -> bytes:
    """Any part of a stream, zeros beyond its end; only what it touches is fetched. Blocks."""
    content = bytearray(length)
    for region in range(offset // REGION_BYTES, min(regions_of(stream.size_bytes), regions_of(offset + length))):
        base = region * REGION_BYTES
        for at, data in _filled(repository, stream, region, offset - base, offset + length - base):
            first, end = max(at, offset), min(at + len(data), offset + length)
            content[first - offset : end - offset] = data[first - at : end - at]
    return bytes(content)


def _filled(repository: Repository, stream: Stream, region: int, first: int, end: int) -> list[Piece]:
    """Chunks of a region that touch this part of it, neighbours joined."""
    page = stream.page(region)
    if page == NO_PAGE:
        return []
    parts = [part for part in repository.page(page) if part.first < end and part.end > first]
    contents = repository.chunks([part.identity for part in parts])
    base = region * REGION_BYTES
    runs: list[tuple[int, list[bytes]]] = []
    last = -1
    for part in parts:
        content = contents[part.identity]
        if len(content) != min(part.end, stream.size_bytes - base) - part.first:
            raise DamagedError(f"chunk {part.identity.hex()[:16]} is not as long as its page says")
        if part.first != last:
            runs.append((base + part.first, []))
        runs[-1][1].append(content)
        last = part.end
    return [(at, b"".join(run)) for at, run in runs]

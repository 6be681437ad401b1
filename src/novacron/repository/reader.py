"""Reading a stream back: chunks are fetched and unpacked in threads, ahead of whoever takes them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from novacron.repository.chunks import CHUNK_BYTES
from novacron.repository.manifest import Stream
from novacron.repository.repository import Repository

AHEAD: Final = 6


async def pieces(repository: Repository, stream: Stream) -> AsyncIterator[tuple[int, bytes]]:
    """Offsets and contents of all chunks that are not zeros, in order; raises as ``Repository.chunk`` does."""
    waiting: deque[tuple[int, asyncio.Task[bytes]]] = deque()
    try:
        for number, identity in stream.chunks():
            waiting.append((number, asyncio.create_task(asyncio.to_thread(repository.chunk, identity))))
            if len(waiting) == AHEAD:
                yield waiting[0][0] * CHUNK_BYTES, await waiting[0][1]
                waiting.popleft()
        while waiting:
            yield waiting[0][0] * CHUNK_BYTES, await waiting[0][1]
            waiting.popleft()
    finally:
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

"""An ordered pipeline: work on parts runs beside their reading, and the results leave in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from novacron.migration.compression import Compression

T = TypeVar("T")
E = TypeVar("E")


class Turns:
    """Frames leave in the order in which they were encoded, whoever encoded them.

    RAM is told against the disks of the other side, so what was encoded first must arrive first. Whoever fails to send
    takes the whole migration down: the others are cancelled by its owner.
    """

    def __init__(self) -> None:
        self._encoding = asyncio.Lock()
        self._taken = 0
        self._sent = 0
        self._moved = asyncio.Condition()

    async def work(self, encode: Callable[[], E], pack: Callable[[E, int], T]) -> asyncio.Future[T]:
        """Encode while nothing else is encoded; what comes of ``pack``, with the turn, is not waited for.

        Both in one thread, which has just touched what it packs. A cancellation waits for the encoding.
        """
        loop = asyncio.get_running_loop()
        async with self._encoding:
            self._taken += 1
            turn, encoded = self._taken, loop.create_future()

            def both() -> T:
                try:
                    what = encode()
                finally:
                    loop.call_soon_threadsafe(encoded.set_result, None)
                return pack(what, turn)

            packing = loop.run_in_executor(None, both)
            await through(encoded)
        return packing

    @asynccontextmanager
    async def my(self, turn: int) -> AsyncIterator[None]:
        """Wait until every earlier turn is over; this one is when the context ends."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._sent == turn - 1)
        yield
        async with self._moved:
            self._sent = turn
            self._moved.notify_all()


async def to_the_end(work: Callable[..., T], *arguments: Any) -> T:
    """``work`` in a thread; a cancellation waits for its end: what it writes to may be used again then."""
    return await through(asyncio.get_running_loop().run_in_executor(None, work, *arguments))


async def through(future: asyncio.Future[T]) -> T:
    """Its result; a cancellation waits for it, too: what cannot be left half-way comes to its end."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        raise


async def in_order(
    parts: AsyncGenerator[asyncio.Future[T], None],
    give: Callable[[T], Awaitable[None]],
    *,
    in_flight: int,
    compression: Compression,
) -> None:
    """Await ``give`` on the results of ``parts``, which are under way, in order.

    ``compression`` is told how long each was waited for.

    At most ``in_flight`` are not yet given, so a slow ``give`` holds back the reading. The first error of any part ends
    all.
    """
    queue: asyncio.Queue[asyncio.Future[T] | None] = asyncio.Queue(in_flight)

    async def deliver() -> None:
        while (future := await queue.get()) is not None:
            with compression.packing():
                packed = await future
            await give(packed)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            async with aclosing(parts):
                async for part in parts:
                    await queue.put(part)
            await queue.put(None)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

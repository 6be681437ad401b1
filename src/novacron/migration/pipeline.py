"""An ordered pipeline: work on parts runs beside their reading, and the results leave in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from novacron.migration.compression import Compression

T = TypeVar("T")


class Turns:
    """Frames leave in the order in which they were encoded, whoever encoded them.

    RAM is told against the disks of the other side, so what was encoded first must arrive first. ``encoding`` is held
    while one thing is encoded; the turn taken then is waited for before its frame is sent. Whoever fails to send takes
    the whole migration down: the others are cancelled by its owner.
    """

    def __init__(self) -> None:
        self.encoding = asyncio.Lock()
        self._taken = 0
        self._sent = 0
        self._moved = asyncio.Condition()

    def take(self) -> int:
        """The next turn; call it while ``encoding`` is held."""
        self._taken += 1
        return self._taken

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
    task = asyncio.create_task(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def in_order(
    parts: AsyncGenerator[Coroutine[Any, Any, T], None],
    give: Callable[[T], Awaitable[None]],
    *,
    in_flight: int,
    compression: Compression,
) -> None:
    """Start each coroutine of ``parts`` as it comes, and await ``give`` on their results, in order.

    ``compression`` is told what was waited for.

    At most ``in_flight`` are started and not yet given, so a slow ``give`` holds back the reading. The first error of
    any part ends all; a cancellation cancels whatever is under way.
    """
    queue: asyncio.Queue[asyncio.Task[T] | None] = asyncio.Queue(in_flight)

    async def deliver() -> None:
        while (task := await queue.get()) is not None:
            began = monotonic()
            packed = await task
            ready = monotonic()
            await give(packed)
            compression.waited(packing_s=ready - began, sending_s=monotonic() - ready)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            async with aclosing(parts):
                async for part in parts:
                    await queue.put(group.create_task(part))
            await queue.put(None)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

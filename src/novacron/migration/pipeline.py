"""An ordered pipeline: work on parts runs beside their reading, and the results leave in order."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")


async def in_order(
    parts: AsyncGenerator[Coroutine[Any, Any, T], None], give: Callable[[T], Awaitable[None]], *, in_flight: int
) -> None:
    """Start each coroutine of ``parts`` as it comes, and await ``give`` on their results, in order.

    At most ``in_flight`` are started and not yet given, so a slow ``give`` holds back the reading. The first error of
    any part ends all; a cancellation cancels whatever is under way.
    """
    queue: asyncio.Queue[asyncio.Task[T] | None] = asyncio.Queue(in_flight)

    async def deliver() -> None:
        while (task := await queue.get()) is not None:
            await give(await task)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            async with aclosing(parts):
                async for part in parts:
                    await queue.put(group.create_task(part))
            await queue.put(None)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

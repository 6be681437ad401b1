"""What changes at a node, to whoever watches."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from novacron.protocol.node import NodeEvent

WAITING: Final = 256  # events for one watcher; one that falls behind further is dropped and must look anew


class Events:
    """Fans events out; a watcher that is too slow loses its subscription, never an event in silence."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[NodeEvent | None]] = set()

    def publish(self, event: NodeEvent) -> None:
        """Give ``event`` to every watcher."""
        for queue in tuple(self._watchers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._watchers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def watch(self) -> AsyncIterator[NodeEvent]:
        """First an empty event (the watch stands), then each as it happens; ends when this watcher fell behind."""
        queue: asyncio.Queue[NodeEvent | None] = asyncio.Queue(WAITING)
        self._watchers.add(queue)
        try:
            yield NodeEvent()
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._watchers.discard(queue)

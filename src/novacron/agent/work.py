"""Work that goes on at a node while a controller asks how far it is; how it ended is kept for whoever asks."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass

import structlog

from novacron.core.errors import InternalError, NovaCronError

log = structlog.get_logger()


@dataclass(slots=True)
class Work:
    """``began`` is the monotonic time. ``done`` may be set before all has been tidied up."""

    began: float
    done: bool = False
    error: NovaCronError | None = None
    task: asyncio.Task[None] | None = None

    def begin(self, what: Coroutine[None, None, None], given_up: NovaCronError) -> None:
        """Go on with it beside; ``given_up`` is its error when it is cancelled before it is done."""
        self.task = asyncio.create_task(self._run(what, given_up))

    async def end(self) -> None:
        """Give it up, and wait for its end; harmless when it has ended."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def rate(self, done_bytes: int, now: float) -> float:
        """Bytes a second since it began."""
        return done_bytes / max(now - self.began, 0.001)

    async def _run(self, what: Coroutine[None, None, None], given_up: NovaCronError) -> None:
        try:
            await what
            self.done = True
        except asyncio.CancelledError:
            if not self.done:
                self.error = given_up
            raise
        except NovaCronError as error:
            self.error = error
        except Exception as error:
            log.exception("work_fault")
            self.error = InternalError(f"a fault of NovaCron itself: {type(error).__name__}: {error}")

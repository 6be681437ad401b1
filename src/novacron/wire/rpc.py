"""Calls over a connection: one answer, a stream of answers, or bytes both ways.

CALL   = MessagePack [id, method, request]     from the client
RESULT = [id, response]   FAULT = [id, code, cause, next command, exit code, HTTP status, retryable]
ITEM   = [id, item]       END = [id]           of a stream, or of bytes both ways
CREDIT = [id, n]          n more items may come: nobody is sent more than it has room for
CANCEL = [id]             from the client: the answer is not wanted any more
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from novacron.core.errors import RemoteError
from novacron.wire.connection import FIRST_FREE_FRAME, Connection
from novacron.wire.errors import ConnectionBrokenError, FrameError

CALL, RESULT, FAULT, ITEM, END, CREDIT, CANCEL = range(FIRST_FREE_FRAME, FIRST_FREE_FRAME + 7)
CREDIT_ITEMS: Final = 32
MAX_CALLS: Final = 1024  # under way on one connection


class Fault(Struct, frozen=True, array_like=True):
    """An error on its way to the caller."""

    call: int
    code: str
    cause: str
    next_command: str
    exit_code: int
    http_status: int
    retryable: bool


class Call:
    """One call under way, at either side: what has come in for it, and how much may go out."""

    def __init__(self, link: "Link", number: int) -> None:
        self._link = link
        self.number = number
        self.incoming: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._credit = asyncio.Semaphore(CREDIT_ITEMS)
        self._consumed = 0
        self.done = False  # the other side has said its last word

    def grant(self, count: int) -> None:
        """The other side has room for more."""
        for _ in range(min(count, CREDIT_ITEMS)):
            self._credit.release()

    async def send(self, item: bytes) -> None:
        """One item, when the other side has room for it."""
        await self._credit.acquire()
        await self._link.frame(ITEM, [self.number, item])

    async def receive(self) -> bytes:
        """The next item; empty after the end. Raises what the other side raised."""
        item = await self.incoming.get()
        if isinstance(item, Exception):
            self.incoming.put_nowait(item)
            raise item
        if item is None:
            self.incoming.put_nowait(None)
            return b""
        self._consumed += 1
        if self._consumed % (CREDIT_ITEMS // 2) == 0:
            await self._link.frame(CREDIT, [self.number, CREDIT_ITEMS // 2])
        return item

    async def end(self) -> None:
        """No more items from this side."""
        await self._link.frame(END, [self.number])


class Link:
    """The calls of one connection. The serving side has ``serve``, which starts what a CALL asks for."""

    def __init__(self, connection: Connection, serve: Callable[["Link", int, str, bytes], None] | None = None) -> None:
        self.connection = connection
        self.calls: dict[int, Call] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._serve = serve
        self._next = 0
        self.broken: Exception | None = None

    async def run(self) -> None:
        """Read until the connection ends, then let every call know."""
        try:
            await self.connection.run(self._take)
        except Exception as error:  # noqa: BLE001 - told to each call below; a link always ends by an error
            self.broken = error
        finally:
            cause = self.broken or ConnectionBrokenError("the connection was closed")
            self.broken = cause
            for call in self.calls.values():
                call.incoming.put_nowait(cause)
            for task in self.tasks.values():
                task.cancel()
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def begin(self) -> Call:
        """A new call of this side."""
        if self.broken is not None:
            raise self.broken
        self._next += 1
        call = self.calls[self._next] = Call(self, self._next)
        return call

    async def frame(self, kind: int, value: object) -> None:
        """Send one frame."""
        await self.connection.send(kind, msgspec.msgpack.encode(value))

    async def _take(self, kind: int, body: bytes) -> None:  # noqa: C901 - a case for each type of frame
        try:
            match kind:
                case _ if kind == CALL and self._serve is not None:
                    number, method, request = msgspec.msgpack.decode(body, type=tuple[int, str, bytes])
                    if len(self.tasks) >= MAX_CALLS or number in self.tasks:
                        raise FrameError(f"call {number}: too many calls, or one number twice")
                    self._serve(self, number, method, request)
                case _ if kind == FAULT:
                    fault = msgspec.msgpack.decode(body, type=Fault)
                    self._put(fault.call, _remote(fault), last=True)
                case _ if kind in {RESULT, ITEM}:
                    number, item = msgspec.msgpack.decode(body, type=tuple[int, bytes])
                    self._put(number, item, last=kind == RESULT)
                case _ if kind == END:
                    (number,) = msgspec.msgpack.decode(body, type=tuple[int])
                    self._put(number, None, last=True)
                case _ if kind == CREDIT:
                    number, count = msgspec.msgpack.decode(body, type=tuple[int, int])
                    if number in self.calls:
                        self.calls[number].grant(count)
                case _ if kind == CANCEL:
                    (number,) = msgspec.msgpack.decode(body, type=tuple[int])
                    if number in self.tasks:
                        self.tasks[number].cancel()
                case _:
                    raise FrameError(f"frame type {kind} does not belong on a link of calls")
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise FrameError(f"a frame of a call cannot be read: {error}") from error

    def _put(self, number: int, item: bytes | Exception | None, *, last: bool) -> None:
        call = self.calls.get(number)
        if call is None:
            return  # cancelled meanwhile
        if call.incoming.qsize() > 2 * CREDIT_ITEMS:
            raise FrameError("the other side sends more than there is room for")
        call.done |= last
        call.incoming.put_nowait(item)


def _remote(fault: Fault) -> RemoteError:
    return RemoteError(
        fault.cause,
        code=fault.code,
        exit_code=fault.exit_code,
        http_status=fault.http_status,
        retryable=fault.retryable,
        next_command=fault.next_command,
    )

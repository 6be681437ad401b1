"""One ordered channel over several connections.

Frames get a number and go to whichever connection has room; the receiver puts them in order. What the channel holds is
bounded on both sides, so a slow receiver holds the sender back. When one connection breaks, the channel does, at once.

    PART = u64 big-endian number, u8 type, body          FIN = u64 how many frames there were
"""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

from novacron.core.clock import SystemClock
from novacron.wire.connection import FIRST_FREE_FRAME, PROTOCOL_VERSION, Connection, Heartbeat, Hello, connect
from novacron.wire.credentials import Credentials
from novacron.wire.errors import ConnectionBrokenError, ConnectionClosedError, FrameError, WireError
from novacron.wire.identity import SpiffeId
from novacron.wire.pacing import TokenBucket
from novacron.wire.shares import Shares
from novacron.wire.streams import streams_to

FRAME_PART: Final = FIRST_FREE_FRAME
FRAME_FIN: Final = FIRST_FREE_FRAME + 1
HEARTBEAT: Final = Heartbeat(every_s=1.0, dead_after_s=6.0)
WINDOW_FRAMES: Final = 64  # how far one connection may be ahead of the others
FIN_TIMEOUT_S: Final = 5.0
READY_FRAMES: Final = 4  # in order, and not yet taken
_PART: Final = struct.Struct(">QB")
_FIN: Final = struct.Struct(">Q")

T = TypeVar("T")
Frame = tuple[int, bytes | memoryview]


class ParallelChannel:
    """One end of a channel: use it as an async context manager.

    Leaving normally closes in order (what was sent arrives), leaving by an error aborts.
    """

    def __init__(
        self,
        connections: list[Connection],
        *,
        pacing: TokenBucket | None = None,
        shares: Shares | None = None,
        weight: float = 1.0,
    ) -> None:
        self._connections = connections
        self._pacing = pacing
        self._waiting = 0  # sends that are held back by it
        self.share = shares.join(weight, self._waits_for_link) if shares is not None else None
        self._outgoing: asyncio.Queue[tuple[int, int, bytes | bytearray | memoryview]] = asyncio.Queue(1)
        self._sent = 0
        self._early: dict[int, Frame] = {}
        self._taken = 0
        self._total: int | None = None
        self._fin_seen = asyncio.Event()
        self._ended = False
        self._ready: asyncio.Queue[Frame | None] = asyncio.Queue(READY_FRAMES)
        self._moved = asyncio.Condition()
        self._order = asyncio.Lock()
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    @property
    def peer(self) -> SpiffeId | None:
        """Who is at the other end."""
        return self._connections[0].peer

    @property
    def wire_bytes_sent(self) -> int:
        """Bytes of all frames sent, TLS records not counted."""
        return sum(connection.bytes_sent for connection in self._connections)

    @property
    def held_back(self) -> bool:
        """Whether a frame waits for this channel's own rate, or for its turn among those that share its way."""
        return self._waiting > 0 or (self.share is not None and self.share.turn is not None)

    @property
    def streams(self) -> int:
        """How many connections it has."""
        return len(self._connections)

    @property
    def rtt_ms(self) -> float:
        """Smallest round-trip time seen; zero when none was."""
        seen = [c.round_trip.minimum_ms for c in self._connections if c.round_trip.minimum_ms]
        return min(seen, default=0.0)

    async def __aenter__(self) -> Self:
        for connection in self._connections:
            self._running.append(asyncio.create_task(self._guard(connection.run(self._take))))
            self._running.append(asyncio.create_task(self._guard(self._feed(connection))))
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._failure is None:
                await self._finish()
        finally:
            self.abort()
            await asyncio.gather(*self._running, return_exceptions=True)

    def abort(self) -> None:
        """Break every connection now."""
        if self.share is not None:
            self.share.leave()
        self._fail(ConnectionClosedError("the channel was closed by this side"))
        for task in self._running:
            task.cancel()
        for connection in self._connections:
            connection.abort()

    async def send(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        """Queue one frame; waits while the link takes no more. Raises what broke the channel.

        After a cancellation the channel is broken: its order has a hole.
        """
        if self._pacing is not None:
            self._waiting += 1
            try:
                await self._pacing.take(len(body))
            finally:
                self._waiting -= 1
        if self.share is not None:
            await self._unless_failed(self.share.take(len(body)))
        number, self._sent = self._sent, self._sent + 1
        try:
            await self._unless_failed(self._outgoing.put((number, kind, body)))
        except asyncio.CancelledError:
            self._fail(ConnectionClosedError("a send on the channel was cancelled"))
            raise

    def hurry(self) -> None:
        """From now on it goes before others that share its way: somebody stands still until all has been sent."""
        if self.share is not None:
            self.share.hurries = True

    async def receive(self) -> Frame:
        """The next frame in order; raises what broke the channel, ConnectionBrokenError after the other side's end."""
        item = self._ready.get_nowait() if not self._ready.empty() else await self._unless_failed(self._ready.get())
        if item is None:
            self._fail(ConnectionBrokenError("the other side has closed the channel"))
            await self._unless_failed(asyncio.sleep(0))
        assert item is not None  # noqa: S101 - the line above has raised
        return item

    def _waits_for_link(self) -> bool:
        """Whether the link holds back what was sent."""
        return any(connection.send_queue.waits_for_link() for connection in self._connections)

    async def _feed(self, connection: Connection) -> None:
        """Whatever comes next, whenever this connection has room."""
        while True:
            number, kind, body = await self._outgoing.get()
            await connection.send(FRAME_PART, b"".join((_PART.pack(number, kind), body)))
            self._outgoing.task_done()

    async def _take(self, kind: int, body: bytes) -> None:
        """One frame of one connection."""
        if kind == FRAME_FIN and len(body) == _FIN.size:
            (self._total,) = _FIN.unpack(body)
            self._fin_seen.set()
        elif kind == FRAME_PART and len(body) >= _PART.size:
            number, inner = _PART.unpack_from(body)
            async with self._moved:
                await self._moved.wait_for(lambda: number < self._taken + WINDOW_FRAMES)
            if number < self._taken or number in self._early:
                raise FrameError(f"frame {number} of a channel came twice")
            self._early[number] = (inner, memoryview(body)[_PART.size :])
        else:
            raise FrameError(f"frame type {kind} does not belong on a channel")
        async with self._order:
            await self._deliver()

    async def _deliver(self) -> None:
        """What is in order now, to whoever receives."""
        while (frame := self._early.pop(self._taken, None)) is not None:
            await self._ready.put(frame)
            async with self._moved:
                self._taken += 1
                self._moved.notify_all()
        if self._total == self._taken and not self._ended:
            self._ended = True
            await self._ready.put(None)

    async def _finish(self) -> None:
        """Say how many frames there were, and hear the same: whoever closes earlier may destroy what is on its way."""
        await self._unless_failed(self._outgoing.join())
        for connection in self._connections:
            await self._unless_failed(connection.send(FRAME_FIN, _FIN.pack(self._sent)))
        with contextlib.suppress(TimeoutError, WireError):
            async with asyncio.timeout(FIN_TIMEOUT_S):
                await self._unless_failed(self._fin_seen.wait())

    async def _guard(self, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001 - whatever broke one part is raised by the next send or receive
            if not self._fin_seen.is_set():
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()

    async def _unless_failed(self, action: Coroutine[Any, Any, T]) -> T:
        """The result of ``action``, or the channel's failure as soon as there is one."""
        if self._failure is not None:
            action.close()
            raise self._failure
        doing, failing = asyncio.ensure_future(action), asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((doing, failing), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            assert self._failure is not None  # noqa: S101 - the event says so
            raise self._failure
        finally:
            for future in (doing, failing):
                future.cancel()
            await asyncio.gather(doing, failing, return_exceptions=True)


async def _all_or_none(connecting: list[Coroutine[Any, Any, Connection]]) -> list[Connection]:
    """All at once, for a far link's sake; when one fails, those that had come about are closed, and it is raised."""
    tasks = [asyncio.create_task(one) for one in connecting]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for made in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(made, Connection):
                made.abort()
        raise


async def open_channel(
    address: str,
    credentials: Credentials,
    expect: SpiffeId,
    session: str,
    *,
    streams: int = 0,
    rate_bytes_s: float | None = None,
    shares: Shares | None = None,
    weight: float = 1.0,
) -> ParallelChannel:
    """Connect ``streams`` times to ``address`` for one channel; raises ConnectionBrokenError, IdentityError.

    With 0 the link decides how often (``streams_to``). Channels of the same ``shares`` share their way by ``weight``.
    """
    context = credentials.client_context()
    streams = streams or await streams_to(address, rate_bytes_s)

    def connecting(index: int) -> Coroutine[Any, Any, Connection]:
        hello = Hello(PROTOCOL_VERSION, "channel", session, index, streams)
        return connect(address, context, credentials.verify, hello, expect=expect, heartbeat=HEARTBEAT)

    connections = await _all_or_none([connecting(index) for index in range(streams)])
    pacing = TokenBucket(rate_bytes_s, SystemClock()) if rate_bytes_s else None
    return ParallelChannel(connections, pacing=pacing, shares=shares, weight=weight)

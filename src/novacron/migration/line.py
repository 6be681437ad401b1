"""One QEMU's connection to the other side's, carried over channels that may break.

Each side numbers the pieces that it reads of its QEMU, and keeps each until the other side has given it to its own.
What is on the way when a channel breaks is sent again over the next one: the QEMUs do not notice. A line ends with the
process that holds it; then the QEMUs themselves recover, over a new line with another key.

QEMU 7.2 needs that: a source's that has sent everything, and then loses its connection, can not be recovered.

Little is ever on the way: a page that the guest waits for must not stand behind many that it does not.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from novacron.content.codec import decode, encode
from novacron.core.clock import Clock
from novacron.hypervisor.return_path import HAS_EVERYTHING, TAIL_BYTES, said_everything
from novacron.migration.beside import beside
from novacron.migration.errors import ChannelProtocolError
from novacron.migration.frames import FrameType
from novacron.migration.pipeline import through
from novacron.migration.ram import FrameSink
from novacron.wire.estimate import Throughput

PIECE_BYTES: Final = 128 * 1024  # before compression
LEAST_ON_THE_WAY_BYTES: Final = 256 * 1024
MOST_ON_THE_WAY: Final = 128  # pieces
ROUND_TRIPS_ON_THE_WAY: Final = 2.0
RATE_WINDOW_S: Final = 0.5
NUMBER: Final = struct.Struct(">Q")
LEVEL: Final = 1  # of zstd
QUIET_S: Final = 0.1  # after what looks like the end of QEMU's stream


class Line:
    """The end at this side; ``key`` names the line to both.

    ``heard`` is told of each LINE and TAKEN frame that comes; ``carry`` sends until QEMU has closed its end, and may be
    begun again over another channel. Only ``close`` closes the connection to QEMU.
    """

    def __init__(self, key: bytes, clock: Clock, path: Path) -> None:
        self.key = key
        self.taken = 0  # pieces of the other side that were given to QEMU
        self.relayed_bytes = 0  # of compressed pieces that were sent
        self.ended = asyncio.Event()  # QEMU has closed its end
        self.done = asyncio.Event()  # and the other side has taken all that it said
        self._clock = clock
        self._path = path
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._kept: deque[_Piece] = deque()  # that the other side has not taken yet
        self._numbered = 0
        self._expected = 1
        self._moved = asyncio.Condition()
        self._coming: asyncio.Queue[bytes] = asyncio.Queue(4)
        self._rate = Throughput(RATE_WINDOW_S)
        self._gone_bytes = 0  # that the other side has taken
        self._tail = b""  # the last that QEMU said
        self._said = asyncio.Event()  # all that it had to say, while that is discarded
        self._giving: asyncio.Task[None] | None = None

    @classmethod
    def to(cls, path: Path, key: bytes, clock: Clock) -> Self:
        """To a QEMU that listens at ``path``."""
        return cls(key, clock, path)

    @classmethod
    def at(cls, path: Path, key: bytes, clock: Clock) -> Self:
        """For a QEMU that will connect to ``path``, at which is listened from now on."""
        self = cls(key, clock, path)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(1)
        return self

    async def open(self) -> None:
        """Return when QEMU is connected."""
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            self._connection, _ = await loop.sock_accept(self._listener)
            self._listener.close()
        else:
            self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            await loop.sock_connect(self._connection, str(self._path))
        self._giving = asyncio.create_task(self._give())

    async def conclude(self) -> None:
        """At a source whose rest nobody needs: once its QEMU has said it, it hears that all of it has come.

        It calls the migration complete then; its guest stands still, and can go on. It must not be told to cancel: see
        ``qemu.content_destination``. Meanwhile ``discard`` must run.
        """
        await self._said.wait()
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._open, HAS_EVERYTHING)
        await self.ended.wait()

    async def discard(self) -> None:
        """Take what QEMU says, until it closes its end: its monitor hangs in what nobody takes."""
        while not (said_everything(self._tail) and await self._is_quiet()):
            if not await self._receive():
                break
        self._said.set()
        while await self._receive():
            pass
        self.ended.set()

    async def close(self) -> None:
        """Both ways, at once; harmless when it is closed."""
        if self._giving is not None:
            self._giving.cancel()
            await asyncio.gather(self._giving, return_exceptions=True)
        for one in (self._listener, self._connection):
            if one is not None:
                one.close()

    async def carry(self, sink: FrameSink, rtt_ms: Callable[[], float], *, taken: int = 0) -> None:
        """Send what QEMU says, after the pieces that the other side has ``taken``; return when it has taken the last.

        A cancellation waits for the frame that is being sent, so the channel is whole after it.
        """
        await self._took(taken)
        async with beside(self._acknowledge(sink)):
            for piece in tuple(self._kept):
                await self._say(sink, piece)
            while (read := await self._read(rtt_ms)) is not None:
                await self._say(sink, read)
            async with self._moved:
                await self._moved.wait_for(lambda: not self._kept)
            self.done.set()

    async def heard(self, kind: int, body: bytes | memoryview) -> None:
        """A LINE or TAKEN frame; raises ChannelProtocolError."""
        if len(body) < NUMBER.size:
            raise ChannelProtocolError("a piece of QEMU's connection without a number")
        (number,) = NUMBER.unpack_from(body)
        if kind == FrameType.TAKEN:
            await self._took(number)
        elif number == self._expected:
            await self._coming.put(decode(body[NUMBER.size :], PIECE_BYTES))
            self._expected += 1
        elif number > self._expected:
            raise ChannelProtocolError(f"piece {number} of QEMU's connection, where {self._expected} comes next")

    async def _say(self, sink: FrameSink, piece: "_Piece") -> None:
        frame = await asyncio.to_thread(encode, piece.data, LEVEL)
        if not piece.wire_bytes:
            piece.wire_bytes = len(frame)
            self.relayed_bytes += len(frame)
        await through(asyncio.ensure_future(sink.send(FrameType.LINE, NUMBER.pack(piece.number) + frame)))

    async def _read(self, rtt_ms: Callable[[], float]) -> "_Piece | None":
        """The next piece that QEMU says, once little enough is on the way; None when it has closed its end."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._has_room(rtt_ms()))
        data = await self._receive()
        if not data:
            self.ended.set()
            return None
        self._numbered += 1
        piece = _Piece(self._numbered, data)
        self._kept.append(piece)  # at once: whatever is cancelled from here on, it is not lost
        return piece

    def _has_room(self, rtt_ms: float) -> bool:
        room = max(LEAST_ON_THE_WAY_BYTES, ROUND_TRIPS_ON_THE_WAY * self._rate.bytes_s * rtt_ms / 1000)
        on_the_way = sum(piece.wire_bytes for piece in self._kept)
        return on_the_way < room and len(self._kept) < MOST_ON_THE_WAY

    async def _took(self, number: int) -> None:
        """The other side has taken all pieces up to this one."""
        async with self._moved:
            while self._kept and self._kept[0].number <= number:
                self._gone_bytes += self._kept.popleft().wire_bytes
            self._rate.add(self._clock.monotonic(), self._gone_bytes)
            self._moved.notify_all()

    async def _acknowledge(self, sink: FrameSink) -> None:
        """Tell the other side what was taken, as soon as it is, the latest alone."""
        told = 0
        while True:
            async with self._moved:
                await self._moved.wait_for(lambda: self.taken > told)  # noqa: B023 - it is awaited here
            told = self.taken
            await through(asyncio.ensure_future(sink.send(FrameType.TAKEN, NUMBER.pack(told))))

    async def _give(self) -> None:
        """To QEMU, as long as it takes anything; what comes after that is of no use to it."""
        while True:
            data = await self._coming.get()
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(self._open, data)
            async with self._moved:
                self.taken += 1
                self._moved.notify_all()

    async def _receive(self) -> bytes:
        """What QEMU says next; empty when it has closed its end."""
        while True:
            await self._readable()
            try:
                data = self._open.recv(PIECE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
            return data

    async def _is_quiet(self) -> bool:
        try:
            async with asyncio.timeout(QUIET_S):
                await self._readable()
        except TimeoutError:
            return True
        return False

    async def _readable(self) -> None:
        """Nothing is taken yet: a cancellation loses nothing."""
        loop, something = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._open, something.set)
        try:
            await something.wait()
        finally:
            loop.remove_reader(self._open)

    @property
    def _open(self) -> socket.socket:
        assert self._connection is not None  # noqa: S101 - whoever carries has opened it
        return self._connection


@dataclass(slots=True)
class _Piece:
    """What QEMU said; ``wire_bytes`` once it was compressed."""

    number: int
    data: bytes
    wire_bytes: int = 0

"""One mutual-TLS connection that knows who is at the other end and notices when nobody is."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from novacron.wire.errors import CertificateExpiredError, ConnectionBrokenError, FrameError, IdentityError
from novacron.wire.estimate import RoundTrip
from novacron.wire.frames import frame_header, read_frame
from novacron.wire.identity import SpiffeId
from novacron.wire.send_queue import SendQueue

PROTOCOL_VERSION: Final = 1
CONGESTION_CONTROL: Final = b"bbr"  # on a long link a lost packet need not mean that it is full
CONNECT_TIMEOUT_S: Final = 10.0
FRAME_HELLO, FRAME_PING, FRAME_PONG = 1, 2, 3
FIRST_FREE_FRAME: Final = 16  # types below are the connection's own
SEND_BUFFER_BYTES: Final = 256 * 1024


class Hello(Struct, frozen=True):
    """The client's first frame: what the connection is for."""

    version: int
    purpose: Annotated[str, Meta(max_length=16)]  # rpc or channel
    session: Annotated[str, Meta(max_length=64)] = ""
    index: Annotated[int, Meta(ge=0, le=63)] = 0
    count: Annotated[int, Meta(ge=1, le=64)] = 1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A ping each ``every_s``; without any frame for ``dead_after_s`` the other side counts as gone."""

    every_s: float = 5.0
    dead_after_s: float = 12.0


class Connection:
    """Frames in both directions. ``run`` must be under way for the heartbeat and for ``on_frame`` to be called."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: SpiffeId | None,
        heartbeat: Heartbeat,
    ) -> None:
        self.peer = peer
        self.round_trip = RoundTrip()
        self.bytes_sent = 0
        self.last_seen = 0.0
        self.send_queue = SendQueue(writer.get_extra_info("socket"))
        self._reader = reader
        self._writer = writer
        self._heartbeat = heartbeat
        self._lock = asyncio.Lock()
        self._taking = False  # a frame is being worked on: the silence is ours

    async def send(self, kind: int, body: bytes | bytearray | memoryview) -> None:
        """Send one frame, with the transport's back-pressure; a cancellation may leave it unsent, never half-sent."""
        header = frame_header(kind, len(body))
        async with self._lock:
            if self._writer.is_closing():
                raise ConnectionBrokenError(f"the connection to {self.peer or 'the other side'} is closed")
            self._writer.write(header)
            self._writer.write(body)
            self.bytes_sent += len(header) + len(body)
            try:
                await self._writer.drain()
            except (ConnectionError, OSError) as error:
                raise ConnectionBrokenError(f"{self.peer or 'the other side'} went away: {error}") from error

    async def run(self, on_frame: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Give every frame to ``on_frame``, in order, until the connection ends; always ends with an error.

        Raises ConnectionBrokenError, FrameError, or what ``on_frame`` raises; the connection is closed then.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(on_frame))
                group.create_task(self._beat())
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is waiting, and close."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._writer.wait_closed()

    async def _read(self, on_frame: Callable[[int, bytes], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        self.last_seen = loop.time()
        while True:
            kind, body = await read_frame(self._reader)
            self.last_seen = loop.time()
            if kind == FRAME_PING:
                await self.send(FRAME_PONG, body)
            elif kind == FRAME_PONG:
                self.round_trip.add((loop.time() - float.fromhex(body.decode())) * 1000)
            else:
                self._taking = True
                await on_frame(kind, body)
                self._taking = False
                self.last_seen = loop.time()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.send(FRAME_PING, loop.time().hex().encode())
            await asyncio.sleep(self._heartbeat.every_s)
            silent_s = loop.time() - self.last_seen
            if silent_s > self._heartbeat.dead_after_s and not self._taking:
                raise ConnectionBrokenError(f"{self.peer or 'the other side'} has been silent for {silent_s:.0f} s")


async def connect(
    address: str,
    context: ssl.SSLContext,
    verify: Callable[[bytes], SpiffeId],
    hello: Hello,
    *,
    expect: SpiffeId | None,
    heartbeat: Heartbeat,
) -> Connection:
    """Connect to ``host:port`` and say what for; raises ConnectionBrokenError, IdentityError.

    ``expect``: who must answer; None takes whomever ``verify`` accepts.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, limit=1 << 20)
    except ssl.SSLCertVerificationError as error:
        if "expired" in str(error):
            raise CertificateExpiredError(f"the certificate of {address} has expired") from error
        raise IdentityError(f"{address} does not prove to be of a trusted cluster: {error.verify_message}") from error
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionBrokenError(f"{address} cannot be reached: {error or 'no answer in time'}") from error
    tune(writer)
    try:
        peer = verify(peer_certificate(writer))
        if expect is not None and peer != expect:
            raise IdentityError(f"{address} is {peer}, not {expect}")  # noqa: TRY301 - the cleanup below is the same
        connection = Connection(reader, writer, peer, heartbeat)
        await connection.send(FRAME_HELLO, msgspec.msgpack.encode(hello))
    except BaseException:
        writer.transport.abort()
        raise
    return connection


async def read_hello(reader: asyncio.StreamReader) -> Hello:
    """What a new connection is for; raises FrameError."""
    kind, body = await read_frame(reader, max_bytes=1024)
    if kind != FRAME_HELLO:
        raise FrameError("a connection does not begin with its hello")
    try:
        hello = msgspec.msgpack.decode(body, type=Hello)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise FrameError(f"a hello cannot be read: {error}") from error
    if hello.version != PROTOCOL_VERSION:
        raise FrameError(f"the other side speaks version {hello.version} of the protocol, this one {PROTOCOL_VERSION}")
    return hello


def peer_certificate(writer: asyncio.StreamWriter) -> bytes:
    """DER of what the other side has shown; empty when it came without."""
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) or b""


def tune(writer: asyncio.StreamWriter) -> None:
    """Keep little queued below us: what a sender may hand over is what the link takes."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 * 1024)
    with contextlib.suppress(OSError):  # a kernel that does not offer it keeps its own
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
    writer.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)

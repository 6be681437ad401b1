"""The serving side: one TLS port for calls and channels."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeVar

import msgspec
import structlog
from msgspec import Struct

from novacron.core.errors import InternalError, InvalidInputError, NovaCronError
from novacron.wire.channel import HEARTBEAT as CHANNEL_HEARTBEAT, ParallelChannel
from novacron.wire.connection import Connection, Heartbeat, Hello, peer_certificate, read_hello, tune
from novacron.wire.credentials import Credentials
from novacron.wire.errors import ConnectionBrokenError, FrameError, NotAllowedError, WireError
from novacron.wire.identity import SpiffeId
from novacron.wire.rpc import FAULT, RESULT, Call, Fault, Link

HELLO_TIMEOUT_S: Final = 10.0
ACCEPT_AGAIN_S: Final = 1.0
log = structlog.get_logger()

Q = TypeVar("Q", bound=Struct)
Allow = Callable[[SpiffeId], bool]
ChannelHandler = Callable[[SpiffeId, str, ParallelChannel], Awaitable[None]]


class Duplex(Protocol):
    """Bytes both ways, with back-pressure; ``receive`` gives empty bytes after the end."""

    async def send(self, item: bytes) -> None:
        """Send."""
        ...

    async def receive(self) -> bytes:
        """Receive."""
        ...


@dataclass(frozen=True, slots=True)
class _Method:
    request: type[Struct]
    answer: Callable[[SpiffeId | None, Any, Call], Awaitable[bytes | None]]
    allow: Allow | None  # None: whoever comes, even without a certificate


@dataclass(slots=True)
class _Gathering:
    """Connections of one channel that have come so far."""

    connections: dict[int, Connection] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """Serves methods and channels to processes that prove who they are; a method says whom it allows."""

    def __init__(self, credentials: Credentials, *, heartbeat: Heartbeat | None = None) -> None:
        self._credentials = credentials
        self._heartbeat = heartbeat or Heartbeat()
        self._methods: dict[str, _Method] = {}
        self._channels: ChannelHandler | None = None
        self._gathering: dict[tuple[SpiffeId, str], _Gathering] = {}
        self._revision = -1
        self._context: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.address = ""

    def method(
        self, name: str, request: type[Q], answer: Callable[[SpiffeId, Q], Awaitable[Struct]], *, allow: Allow
    ) -> None:
        """``answer`` a request with one response."""

        async def call(peer: SpiffeId | None, message: Q, _: Call) -> bytes:
            assert peer is not None  # noqa: S101 - ``allow`` has seen it
            return msgspec.msgpack.encode(await answer(peer, message))

        self._methods[name] = _Method(request, call, allow)

    def anonymous(self, name: str, request: type[Q], answer: Callable[[Q], Awaitable[Struct]]) -> None:
        """A method for those who cannot prove anything yet: its request carries a token."""

        async def call(_peer: SpiffeId | None, message: Q, _: Call) -> bytes:
            return msgspec.msgpack.encode(await answer(message))

        self._methods[name] = _Method(request, call, None)

    def stream(
        self, name: str, request: type[Q], answer: Callable[[SpiffeId, Q], AsyncIterator[Struct]], *, allow: Allow
    ) -> None:
        """``answer`` a request with items until the iterator ends."""

        async def call(peer: SpiffeId | None, message: Q, call: Call) -> None:
            assert peer is not None  # noqa: S101 - ``allow`` has seen it
            async for item in answer(peer, message):
                await call.send(msgspec.msgpack.encode(item))
            await call.end()

        self._methods[name] = _Method(request, call, allow)

    def duplex(
        self, name: str, request: type[Q], answer: Callable[[SpiffeId, Q, Duplex], Awaitable[None]], *, allow: Allow
    ) -> None:
        """``answer`` a request by bytes both ways."""

        async def call(peer: SpiffeId | None, message: Q, call: Call) -> None:
            assert peer is not None  # noqa: S101 - ``allow`` has seen it
            await answer(peer, message, call)
            await call.end()

        self._methods[name] = _Method(request, call, allow)

    def channels(self, handler: ChannelHandler) -> None:
        """``handler`` is given every channel once all its connections are here; the channel ends with it."""
        self._channels = handler

    async def start(self, host: str, port: int) -> Self:
        """Listen; ``address`` says where (a port of 0 is chosen)."""
        listener = socket.create_server((host, port), reuse_port=False)
        return await self.start_on(listener)

    async def start_on(self, listener: socket.socket) -> Self:
        """Listen on a socket that is bound already."""
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        self._begin(self._listen(listener, self._server_context()))
        return self

    async def close(self) -> None:
        """Stop listening and end what is under way, handshakes too."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Each connection is a task of its own from its first byte: asyncio's server forgets those that shake hands."""
        with listener:
            while True:
                try:
                    accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:  # too many files are open: some will be closed
                    log.warning("accept_failed", cause=str(error))
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                else:
                    self._begin(self._accept(accepted, context))

    def _server_context(self) -> ssl.SSLContext:
        """One context whose SNI hook swaps in the newest: a renewed certificate needs no new listener."""
        context = self._credentials.server_context()

        def newest(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            tls.context = self._current_context()

        context.sni_callback = newest
        return context

    def _current_context(self) -> ssl.SSLContext:
        if self._context is None or self._revision != self._credentials.revision:
            self._revision = self._credentials.revision
            self._context = self._credentials.server_context()
        return self._context

    async def _accept(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=context, ssl_handshake_timeout=HELLO_TIMEOUT_S
            )
        except OSError as error:  # of TLS too
            log.info("handshake_failed", cause=str(error))
        else:
            await self._serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            tune(writer)
            certificate = peer_certificate(writer)
            peer = self._credentials.verify(certificate) if certificate else None
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = await read_hello(reader)
            if hello.purpose == "rpc":
                await self._serve_calls(Connection(reader, writer, peer, self._heartbeat))
            elif hello.purpose == "channel" and peer is not None:
                await self._serve_channel(Connection(reader, writer, peer, CHANNEL_HEARTBEAT), peer, hello)
        except (WireError, TimeoutError) as error:
            log.info("connection_refused", cause=str(error))
        finally:
            writer.transport.abort()

    async def _serve_calls(self, connection: Connection) -> None:
        link = Link(connection, self._start)
        await link.run()

    async def _serve_channel(self, connection: Connection, peer: SpiffeId, hello: Hello) -> None:
        """The last connection of a channel to come serves it; the others wait for its end."""
        gathering = self._gathering.setdefault((peer, hello.session), _Gathering())
        if hello.index in gathering.connections or self._channels is None:
            raise FrameError(f"connection {hello.index} of channel {hello.session} came twice, or to nobody")
        gathering.connections[hello.index] = connection
        if len(gathering.connections) < hello.count:
            await self._await_others(gathering, peer, hello)
            return
        del self._gathering[peer, hello.session]
        try:
            ordered = [gathering.connections[index] for index in sorted(gathering.connections)]
            async with ParallelChannel(ordered) as channel:
                await self._channels(peer, hello.session, channel)
        except NovaCronError as error:
            log.info("channel_ended", session=hello.session, peer=str(peer), cause=str(error))
        finally:
            gathering.complete.set()

    async def _await_others(self, gathering: _Gathering, peer: SpiffeId, hello: Hello) -> None:
        """A reader that returns would close the connection: stay until the channel has ended."""
        while not gathering.complete.is_set():
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    await gathering.complete.wait()
            except TimeoutError:
                if self._gathering.get((peer, hello.session)) is gathering:
                    del self._gathering[peer, hello.session]
                    raise FrameError(f"channel {hello.session} did not become whole in time") from None

    def _start(self, link: Link, number: int, method: str, request: bytes) -> None:
        call = link.calls[number] = Call(link, number)
        task = link.tasks[number] = asyncio.create_task(self._answer(link, call, method, request))
        task.add_done_callback(lambda _: (link.tasks.pop(number, None), link.calls.pop(number, None)))

    async def _answer(self, link: Link, call: Call, name: str, request: bytes) -> None:
        peer = link.connection.peer
        try:
            result = await self._run(peer, call, name, request)
            if result is not None:
                await link.frame(RESULT, [call.number, result])
        except ConnectionBrokenError:
            return  # nobody is left to tell
        except Exception as error:
            if not isinstance(error, NovaCronError):
                log.exception("call_failed", method=name, peer=str(peer))
                error = InternalError(f"{name} failed by a fault of its own; the log of that process has the details")
            with contextlib.suppress(ConnectionBrokenError):
                await link.frame(FAULT, _fault(call.number, error))

    async def _run(self, peer: SpiffeId | None, call: Call, name: str, request: bytes) -> bytes | None:
        method = self._methods.get(name)
        if method is None:
            raise InvalidInputError(
                f"there is no method {name[:100]!r} here: the other process may be of another version"
            )
        if method.allow is not None and (peer is None or not method.allow(peer)):
            raise NotAllowedError(f"{peer or 'a caller without a certificate'} may not call {name}")
        try:
            message = msgspec.msgpack.decode(request, type=method.request)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidInputError(f"the request of {name} cannot be read: {error}") from error
        return await method.answer(peer, message, call)


def _fault(number: int, error: NovaCronError) -> Fault:
    return Fault(
        number, error.code, error.cause, error.next_command, error.exit_code, error.http_status, error.retryable
    )

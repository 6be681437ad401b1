"""The calling side: one connection, opened when it is needed and opened anew when it broke."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeVar

import msgspec
from msgspec import Struct

from novacron.wire.connection import PROTOCOL_VERSION, Heartbeat, Hello, connect
from novacron.wire.credentials import Credentials, anonymous_context
from novacron.wire.errors import ConnectionBrokenError, ConnectionClosedError
from novacron.wire.identity import SpiffeId
from novacron.wire.rpc import CALL, CANCEL, Call, Link
from novacron.wire.server import Duplex

CALL_TIMEOUT_S: Final = 30.0
A = TypeVar("A", bound=Struct)


class Client:
    """Calls to one address. Many may be under way at once; ``close`` (or leaving the context) ends them."""

    def __init__(
        self,
        address: str,
        context: Callable[[], ssl.SSLContext],
        verify: Callable[[bytes], SpiffeId],
        *,
        expect: SpiffeId | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.address = address
        self._context = context
        self._verify = verify
        self._expect = expect
        self._heartbeat = heartbeat or Heartbeat()
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @classmethod
    def known(
        cls, address: str, credentials: Credentials, *, expect: SpiffeId | None, heartbeat: Heartbeat | None = None
    ) -> Self:
        """Calls under one's own name, to a process that proves to be ``expect`` (None: of any trusted cluster)."""
        return cls(address, credentials.client_context, credentials.verify, expect=expect, heartbeat=heartbeat)

    @classmethod
    def anonymous(cls, address: str, trust_domain: str, root_pem: str, verify: Callable[[bytes], SpiffeId]) -> Self:
        """Calls under no name, to the controller whose root an invitation carries."""
        expect = SpiffeId(trust_domain, "controller")
        return cls(address, lambda: anonymous_context(root_pem), verify, expect=expect)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every call and the connection."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def call(self, method: str, request: Struct, answer: type[A], *, timeout_s: float = CALL_TIMEOUT_S) -> A:
        """The one response; raises RemoteError, ConnectionBrokenError. A cancellation cancels it at the other side."""
        try:
            async with asyncio.timeout(timeout_s), self._begin(method, request) as call:
                return self._decode(await call.receive(), answer)
        except TimeoutError:
            raise ConnectionBrokenError(f"{self.address} did not answer {method} within {timeout_s:.0f} s") from None

    async def stream(self, method: str, request: Struct, item: type[A]) -> AsyncGenerator[A, None]:
        """Items until the other side ends; leaving early (under ``aclosing``) cancels it there."""
        async with self._begin(method, request) as call:
            while body := await call.receive():
                yield self._decode(body, item)

    @asynccontextmanager
    async def duplex(self, method: str, request: Struct) -> AsyncIterator[Duplex]:
        """Bytes both ways while the context lasts."""
        async with self._begin(method, request) as call:
            yield call

    @asynccontextmanager
    async def _begin(self, method: str, request: Struct) -> AsyncIterator[Call]:
        link = await self._connected()
        call = link.begin()
        try:
            await link.frame(CALL, [call.number, method, msgspec.msgpack.encode(request)])
            yield call
        finally:
            link.calls.pop(call.number, None)
            if link.broken is None and not call.done:
                with contextlib.suppress(ConnectionBrokenError):
                    await asyncio.shield(link.frame(CANCEL, [call.number]))

    def _decode(self, body: bytes, kind: type[A]) -> A:
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConnectionBrokenError(f"the answer of {self.address} cannot be read: {error}") from error

    async def _connected(self) -> Link:
        async with self._opening:
            if self._closed:
                raise ConnectionClosedError(f"the client of {self.address} was closed")
            if self._link is None or self._link.broken is not None:
                connection = await connect(
                    self.address,
                    self._context(),
                    self._verify,
                    Hello(PROTOCOL_VERSION, "rpc"),
                    expect=self._expect,
                    heartbeat=self._heartbeat,
                )
                self._link = Link(connection)
                self._running = asyncio.create_task(self._link.run())
            return self._link

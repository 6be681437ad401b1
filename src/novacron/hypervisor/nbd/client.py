"""A client for network block devices: fixed newstyle, structured replies, metadata contexts, requests in flight.

Every length that the server sends is bounded by what was asked for.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.errors import NbdError
from novacron.hypervisor.nbd import messages as nbd
from novacron.hypervisor.nbd.messages import Extent


@dataclass(slots=True)
class _Pending:
    """One request under way: what may still arrive for it."""

    offset: int
    length: int
    done: asyncio.Future[None]
    data: bytearray | None = None
    extents: list[Extent] = field(default_factory=list)
    context: str = ""
    error: str = ""


class NbdClient:
    """One connection to one export. Reads and writes may be in flight side by side; the server may reorder them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.size_bytes = 0
        self._contexts: dict[int, str] = {}
        self._pending: dict[int, _Pending] = {}
        self._next = 0
        self._receiving: asyncio.Task[None] | None = None
        self._broken: str = ""

    @classmethod
    @asynccontextmanager
    async def connect(cls, export: DiskExport, *, contexts: Sequence[str] = ()) -> AsyncIterator[Self]:
        """Open ``export``; on leaving, say goodbye. Raises NbdError."""
        try:
            reader, writer = await asyncio.open_unix_connection(export.socket, limit=4 << 20)
        except OSError as error:
            raise NbdError(f"no block export answers at {export.socket}: {error}") from error
        self = cls(reader, writer)
        try:
            try:
                await self._negotiate(export.name, contexts)
            except (asyncio.IncompleteReadError, ConnectionError, struct.error) as error:
                raise NbdError(f"the block export {export.name!r} hung up: {error}") from error
            self._receiving = asyncio.create_task(self._receive())
            yield self
        finally:
            await self._leave()

    async def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""
        pending = await self._ask(nbd.READ, offset, length, data=bytearray(length))
        return bytes(pending.data or b"")

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write; durable only after ``flush``."""
        await self._ask(nbd.WRITE, offset, len(data), payload=data)

    async def write_zeroes(self, offset: int, length: int) -> None:
        """Make ``length`` bytes read as zeros, as holes where that is possible."""
        await self._ask(nbd.WRITE_ZEROES, offset, length)

    async def flush(self) -> None:
        """Return when everything written before is durable."""
        await self._ask(nbd.FLUSH, 0, 0)

    async def extents(self, context: str) -> list[Extent]:
        """The whole disk by the flags of ``context``, neighbours of equal flags joined."""
        found: list[Extent] = []
        position = 0
        while position < self.size_bytes:
            length = min(nbd.MAX_EXTENTS_ASKED, self.size_bytes - position)
            pending = await self._ask(nbd.BLOCK_STATUS, position, length, context=context)
            if not pending.extents:
                raise NbdError(f"the block export knows nothing of {context}")
            for extent in pending.extents:
                if found and found[-1].flags == extent.flags:
                    found[-1] = Extent(found[-1].offset, found[-1].length + extent.length, extent.flags)
                else:
                    found.append(extent)
            position = found[-1].offset + found[-1].length
        return found

    async def _negotiate(self, name: str, contexts: Sequence[str]) -> None:
        magic, option_magic, flags = nbd.GREETING.unpack(await self._reader.readexactly(nbd.GREETING.size))
        if (magic, option_magic) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & nbd.FIXED_NEWSTYLE:
            raise NbdError("the server does not speak fixed newstyle NBD")
        self._writer.write(struct.pack(">I", nbd.FIXED_NEWSTYLE | (flags & nbd.NO_ZEROES)))
        await self._option(nbd.OPT_STRUCTURED, b"")
        encoded = name.encode()
        export = struct.pack(">I", len(encoded)) + encoded
        if contexts:
            await self._set_contexts(export, contexts)
        for kind, body in await self._option(nbd.OPT_GO, export + struct.pack(">H", 0)):
            if kind == nbd.REP_INFO and body[:2] == b"\0\0":
                self.size_bytes = int.from_bytes(body[2:10], "big")

    async def _set_contexts(self, export: bytes, contexts: Sequence[str]) -> None:
        query = export + struct.pack(">I", len(contexts))
        for context in contexts:
            query += struct.pack(">I", len(context)) + context.encode()
        for kind, body in await self._option(nbd.OPT_SET_META, query):
            if kind == nbd.REP_META:
                self._contexts[int.from_bytes(body[:4], "big")] = body[4:].decode()
        missing = set(contexts) - set(self._contexts.values())
        if missing:
            raise NbdError(f"the block export does not offer {', '.join(sorted(missing))}")

    async def _option(self, option: int, body: bytes) -> list[tuple[int, bytes]]:
        self._writer.write(nbd.OPTION.pack(b"IHAVEOPT", option, len(body)) + body)
        replies: list[tuple[int, bytes]] = []
        while True:
            head = await self._reader.readexactly(nbd.OPTION_REPLY.size)
            magic, answered, kind, length = nbd.OPTION_REPLY.unpack(head)
            if magic != nbd.REPLY_MAGIC or answered != option or length > nbd.MAX_OPTION_BYTES:
                raise NbdError("the server's answer to an option is not one of the protocol")
            data = await self._reader.readexactly(length)
            if kind & nbd.REP_ERROR:
                raise NbdError(f"the server refuses option {option}: {data.decode(errors='replace')}")
            if kind == nbd.REP_ACK:
                return replies
            replies.append((kind, data))

    async def _ask(
        self,
        kind: int,
        offset: int,
        length: int,
        *,
        payload: bytes | memoryview = b"",
        data: bytearray | None = None,
        context: str = "",
    ) -> _Pending:
        """Send a request and wait for the end of its answer."""
        if length > nbd.MAX_REQUEST_BYTES and kind in {nbd.READ, nbd.WRITE}:
            raise NbdError(f"{length} bytes in one request: at most {nbd.MAX_REQUEST_BYTES}")
        if self._broken:
            raise NbdError(self._broken)
        self._next += 1
        cookie = self._next
        pending = _Pending(offset, length, asyncio.get_running_loop().create_future(), data, context=context)
        self._pending[cookie] = pending
        try:
            self._writer.write(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, kind, cookie, offset, length))
            if payload:
                self._writer.write(payload)
            await self._writer.drain()
            await pending.done
        except ConnectionError as error:
            raise NbdError(f"the block export went away: {error}") from error
        finally:
            if pending.done.done():  # after a cancellation the answer is still to come, and must find its place
                self._pending.pop(cookie, None)
        if pending.error:
            raise NbdError(pending.error)
        return pending

    async def _receive(self) -> None:
        try:
            while True:
                await self._reply(int.from_bytes(await self._reader.readexactly(4), "big"))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._break(f"the block export went away: {error}")
        except NbdError as error:
            self._break(error.cause)

    async def _reply(self, magic: int) -> None:
        if magic == nbd.SIMPLE_MAGIC:
            await self._simple()
        elif magic == nbd.STRUCTURED_MAGIC:
            await self._chunk()
        else:
            raise NbdError("the server's reply is not one of the protocol")

    async def _simple(self) -> None:
        error, cookie = struct.unpack(">IQ", await self._reader.readexactly(nbd.SIMPLE.size - 4))
        pending = self._find(cookie)
        if error:
            pending.error = f"the block export answers error {error}"
        elif pending.data is not None:
            pending.data[:] = await self._reader.readexactly(pending.length)
        self._finish(cookie, pending)

    async def _chunk(self) -> None:
        rest = await self._reader.readexactly(nbd.STRUCTURED.size - 4)
        flags, kind, cookie, length = struct.unpack(">HHQI", rest)
        pending = self._find(cookie)
        if length > nbd.MAX_REQUEST_BYTES + 8:
            raise NbdError(f"the server announces a chunk of {length} bytes")
        body = await self._reader.readexactly(length)
        match kind:
            case _ if kind in {nbd.CHUNK_DATA, nbd.CHUNK_HOLE}:
                self._place(pending, kind, body)
            case _ if kind == nbd.CHUNK_STATUS:
                self._mark(pending, body)
            case _ if kind & nbd.CHUNK_ERROR:
                pending.error = f"the block export answers error {int.from_bytes(body[:4], 'big')}: " + body[6:].decode(
                    errors="replace"
                )
        if flags & nbd.DONE:
            self._finish(cookie, pending)

    def _place(self, pending: _Pending, kind: int, body: bytes) -> None:
        at = int.from_bytes(body[:8], "big") - pending.offset
        size = int.from_bytes(body[8:12], "big") if kind == nbd.CHUNK_HOLE else len(body) - 8
        if pending.data is None or at < 0 or at + size > pending.length:
            raise NbdError("the server sent data that nobody asked for")
        if kind == nbd.CHUNK_DATA:  # a hole stays the zeros that the buffer began with
            pending.data[at : at + size] = memoryview(body)[8:]

    def _mark(self, pending: _Pending, body: bytes) -> None:
        if self._contexts.get(int.from_bytes(body[:4], "big")) != pending.context:
            return
        position, end = pending.offset, pending.offset + pending.length
        for announced, flags in struct.iter_unpack(">II", body[4:]):
            length = min(announced, end - position)
            if length > 0:
                pending.extents.append(Extent(position, length, flags))
                position += length

    def _find(self, cookie: int) -> _Pending:
        pending = self._pending.get(cookie)
        if pending is None:
            raise NbdError("the server answers a request that was never made")
        return pending

    def _finish(self, cookie: int, pending: _Pending) -> None:
        self._pending.pop(cookie, None)
        if not pending.done.done():
            pending.done.set_result(None)

    def _break(self, cause: str) -> None:
        self._broken = cause
        for pending in self._pending.values():
            pending.error = pending.error or cause
            if not pending.done.done():
                pending.done.set_result(None)
        self._pending.clear()

    async def _leave(self) -> None:
        """Nothing is waited for before the connection is closed: who leaves may be cancelled once more."""
        if self._receiving is not None and not self._broken:
            self._writer.write(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.DISCONNECT, 0, 0, 0))
        self._writer.close()
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        with contextlib.suppress(ConnectionError):  # the server may be faster
            await self._writer.wait_closed()

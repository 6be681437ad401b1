"""A server of block devices: the other end of ``client``, for disks that no QEMU holds.

Requests of one connection are answered in their order. Every length that a client sends is bounded before memory is
taken for it.
"""

import asyncio
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol, Self

from novacron.hypervisor.nbd import messages as nbd

_EINVAL: Final = 22
_HELLO_BYTES: Final = 4  # the client's flags


class BlockDevice(Protocol):
    """What can be exported. Offsets and lengths lie within ``size_bytes``: the server has seen to it."""

    size_bytes: int
    writable: bool

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write; of a device that is ``writable``."""
        ...

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make it read as zeros."""
        ...

    def contexts(self) -> Iterable[str]:
        """Names of what ``extents`` can tell."""
        ...

    def extents(self, context: str, offset: int, length: int) -> list[nbd.Extent]:
        """From ``offset`` on, without a gap, at least one; the last may end behind ``length``."""
        ...


class NbdServer:
    """Exports on one unix socket; use as an async context manager."""

    def __init__(self, path: Path, exports: Mapping[str, BlockDevice]) -> None:
        self._path = path
        self._exports = exports
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_Session(self._exports, reader, writer).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Session:
    """One client."""

    def __init__(
        self, exports: Mapping[str, BlockDevice], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._exports = exports
        self._reader = reader
        self._writer = writer
        self._structured = False
        self._contexts: dict[str, int] = {}

    async def run(self) -> None:
        """Negotiate, then answer until the client leaves, or breaks the protocol."""
        try:
            device = await self._negotiate()
            while device is not None and await self._answer(device):
                await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, struct.error):
            return  # it hung up, or what it sent is no message of the protocol: there is nobody to tell
        finally:
            self._writer.close()

    async def _negotiate(self) -> BlockDevice | None:
        """The device that the client has chosen; None when it left, or spoke no option of ours."""
        self._writer.write(nbd.GREETING.pack(b"NBDMAGIC", b"IHAVEOPT", nbd.FIXED_NEWSTYLE | nbd.NO_ZEROES))
        await self._reader.readexactly(_HELLO_BYTES)
        while True:
            magic, option, length = nbd.OPTION.unpack(await self._reader.readexactly(nbd.OPTION.size))
            if magic != b"IHAVEOPT" or length > nbd.MAX_OPTION_BYTES:
                return None
            body = await self._reader.readexactly(length)
            match option:
                case nbd.OPT_STRUCTURED:
                    self._structured = True
                    self._reply(option, nbd.REP_ACK)
                case nbd.OPT_SET_META:
                    self._set_contexts(body)
                case nbd.OPT_GO:
                    if (device := self._go(body)) is not None:
                        return device
                case _:
                    self._reply(option, nbd.REP_ERROR | 1, b"not an option of this server")
            await self._writer.drain()

    def _go(self, body: bytes) -> BlockDevice | None:
        name, _ = _text(body)
        device = self._exports.get(name)
        if device is None:
            self._reply(nbd.OPT_GO, nbd.REP_ERROR | 6, f"there is no export {name!r}".encode())
            return None
        flags = nbd.HAS_FLAGS | nbd.SEND_FLUSH | nbd.SEND_WRITE_ZEROES | (0 if device.writable else nbd.READ_ONLY)
        self._reply(nbd.OPT_GO, nbd.REP_INFO, struct.pack(">HQH", 0, device.size_bytes, flags))
        self._reply(nbd.OPT_GO, nbd.REP_ACK)
        return device

    def _set_contexts(self, body: bytes) -> None:
        name, rest = _text(body)
        device = self._exports.get(name)
        offered = [] if device is None else list(device.contexts())
        (count,), rest = struct.unpack_from(">I", rest), rest[4:]
        for _ in range(min(count, nbd.MAX_CONTEXTS)):
            wanted, rest = _text(rest)
            if wanted in offered:
                number = self._contexts.setdefault(wanted, len(self._contexts) + 1)
                self._reply(nbd.OPT_SET_META, nbd.REP_META, struct.pack(">I", number) + wanted.encode())
        self._reply(nbd.OPT_SET_META, nbd.REP_ACK)

    def _reply(self, option: int, kind: int, body: bytes = b"") -> None:
        self._writer.write(nbd.OPTION_REPLY.pack(nbd.REPLY_MAGIC, option, kind, len(body)) + body)

    async def _answer(self, device: BlockDevice) -> bool:
        """One request; False when the client says goodbye, or cannot be understood."""
        head = await self._reader.readexactly(nbd.REQUEST.size)
        magic, _flags, kind, cookie, offset, length = nbd.REQUEST.unpack(head)
        writes = kind == nbd.WRITE
        if magic != nbd.REQUEST_MAGIC or kind == nbd.DISCONNECT or (writes and length > nbd.MAX_REQUEST_BYTES):
            return False
        data = await self._reader.readexactly(length) if writes else b""
        outside = offset + length > device.size_bytes or (kind == nbd.READ and length > nbd.MAX_REQUEST_BYTES)
        if outside or (kind in {nbd.WRITE, nbd.WRITE_ZEROES} and not device.writable):
            self._refuse(cookie)
            return True
        match kind:
            case nbd.READ:
                self._data(cookie, offset, device.read(offset, length))
            case nbd.WRITE:
                device.write(offset, data)
                self._done(cookie)
            case nbd.WRITE_ZEROES:
                device.write_zeroes(offset, length)
                self._done(cookie)
            case nbd.FLUSH:
                self._done(cookie)
            case nbd.BLOCK_STATUS if self._contexts:
                self._status(cookie, device, offset, length)
            case _:
                self._refuse(cookie)
        return True

    def _status(self, cookie: int, device: BlockDevice, offset: int, length: int) -> None:
        for context, number in self._contexts.items():
            extents = device.extents(context, offset, length)
            body = struct.pack(">I", number) + b"".join(struct.pack(">II", e.length, e.flags) for e in extents)
            self._chunk(cookie, nbd.CHUNK_STATUS, body, last=number == len(self._contexts))

    def _data(self, cookie: int, offset: int, data: bytes) -> None:
        if self._structured:
            self._chunk(cookie, nbd.CHUNK_DATA, struct.pack(">Q", offset) + data, last=True)
        else:
            self._done(cookie)
            self._writer.write(data)

    def _done(self, cookie: int) -> None:
        self._writer.write(nbd.SIMPLE.pack(nbd.SIMPLE_MAGIC, 0, cookie))

    def _refuse(self, cookie: int) -> None:
        if self._structured:
            text = b"not in this export, or not allowed on it"
            body = struct.pack(">IH", _EINVAL, len(text)) + text
            self._chunk(cookie, nbd.CHUNK_ERROR | 1, body, last=True)
        else:
            self._writer.write(nbd.SIMPLE.pack(nbd.SIMPLE_MAGIC, _EINVAL, cookie))

    def _chunk(self, cookie: int, kind: int, body: bytes, *, last: bool) -> None:
        flags = nbd.DONE if last else 0
        self._writer.write(nbd.STRUCTURED.pack(nbd.STRUCTURED_MAGIC, flags, kind, cookie, len(body)) + body)


def _text(body: bytes) -> tuple[str, bytes]:
    """A counted text, and what follows it."""
    (length,) = struct.unpack_from(">I", body)
    return body[4 : 4 + length].decode(errors="replace"), body[4 + length :]

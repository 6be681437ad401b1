"""The unix socket that a QEMU's migration stream comes through; its return path goes the other way.

Read straight into the buffers in which the stream is taken apart, a batch at a time: a stream of asyncio would copy
each byte three times, and wake for each of the small parts in which a socket hands them over.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from novacron.migration.pipeline import to_the_end

LINGER_S: Final = 0.004  # batches of a MiB compress better, and cost less, than those of what one read finds
_TIMEVAL: Final = struct.Struct("@ll")  # seconds, microseconds


class QemuSocket:
    """One QEMU's connection to ``path``; whoever connects later is refused."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._socket: socket.socket | None = None

    @classmethod
    @asynccontextmanager
    async def at(cls, path: Path) -> AsyncIterator[Self]:
        """Listen while the context lasts; its end closes both ways at once."""
        path.unlink(missing_ok=True)
        qemu = cls(path)
        try:
            yield qemu
        finally:
            qemu.close()
            path.unlink(missing_ok=True)

    async def connected(self) -> None:
        """Return when QEMU has connected."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._listener.close()
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, round(LINGER_S * 1e6)))
        self._socket = connection

    async def read_into(self, room: memoryview) -> int:
        """Fill ``room`` with what comes within ``LINGER_S``, one byte at the least; 0 at the end."""
        while True:
            try:
                return await to_the_end(self._connection.recv_into, room, len(room), socket.MSG_WAITALL)
            except BlockingIOError:
                await self._readable()

    async def write(self, data: bytes | memoryview) -> None:
        """Say it on the return path."""
        await to_the_end(self._connection.sendall, data)

    def close(self) -> None:
        """Both ways, at once."""
        self._listener.close()
        if self._socket is not None:
            self._socket.close()

    async def _readable(self) -> None:
        """Wait, for as long as it takes, for something to read."""
        loop = asyncio.get_running_loop()
        something = asyncio.Event()
        loop.add_reader(self._connection, something.set)
        try:
            await something.wait()
        finally:
            loop.remove_reader(self._connection)

    @property
    def _connection(self) -> socket.socket:
        assert self._socket is not None  # noqa: S101 - whoever reads or writes has waited for it
        return self._socket

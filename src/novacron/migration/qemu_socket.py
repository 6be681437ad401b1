"""The unix socket that a QEMU's migration stream comes through; its return path goes the other way.

Read straight into the buffers in which the stream is taken apart: a stream of asyncio would copy each byte three times.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

LINGER_S: Final = 0.002  # batches of a MiB compress better, and cost less, than those of what one read finds


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
        self._socket, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._listener.close()

    async def read_into(self, room: memoryview) -> int:
        """Fill ``room`` with what comes while more comes soon, one byte at the least; 0 at the end."""
        count = 0
        while count < len(room):
            try:
                more = self._connection.recv_into(room[count:])
            except BlockingIOError:
                if not await self._readable(LINGER_S if count else None):
                    break
            else:
                if not more:
                    break
                count += more
        return count

    async def write(self, data: bytes | memoryview) -> None:
        """Say it on the return path."""
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    def close(self) -> None:
        """Both ways, at once."""
        self._listener.close()
        if self._socket is not None:
            self._socket.close()

    async def _readable(self, within_s: float | None) -> bool:
        """Wait for something to read: nothing is taken, so nothing is lost when the time is over first."""
        loop = asyncio.get_running_loop()
        something = asyncio.Event()
        loop.add_reader(self._connection, something.set)
        try:
            async with asyncio.timeout(within_s):
                await something.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._connection)
        return True

    @property
    def _connection(self) -> socket.socket:
        assert self._socket is not None  # noqa: S101 - whoever reads or writes has waited for it
        return self._socket

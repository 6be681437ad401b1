"""TCP relays that keep a copy of all that passes them, both ways."""

import asyncio
import contextlib
from contextlib import asynccontextmanager


class Capture:
    """One relay before each port that is asked for; ``ways`` are the bytes of each direction of each connection."""

    def __init__(self) -> None:
        self.ways: list[bytearray] = []
        self._servers: list[asyncio.Server] = []
        self._joining: set[asyncio.Task] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def size(self) -> int:
        return sum(map(len, self.ways))

    def saw(self, piece: bytes) -> bool:
        return any(piece in way for way in self.ways)

    @contextlib.contextmanager
    def held(self):
        """Carry nothing meanwhile, and say so to nobody."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    async def front(self, port: int) -> str:
        """The address of a relay to a port of this host."""

        async def join(reader, writer) -> None:
            self._joining.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
                finally:
                    far_writer.close()
            writer.close()

        server = await asyncio.start_server(join, "127.0.0.1", 0)
        self._servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _carry(self, reader, writer) -> None:
        way = bytearray()
        self.ways.append(way)
        while data := await reader.read(1 << 16):
            way += data
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._joining:
            task.cancel()
        await asyncio.gather(*self._joining, return_exceptions=True)


@asynccontextmanager
async def capturing():
    """A capture whose relays end with the context."""
    capture = Capture()
    try:
        yield capture
    finally:
        await capture.close()

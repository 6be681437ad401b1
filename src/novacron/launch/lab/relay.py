"""The lab of everybody else: both sites on loopback, and a TCP relay before each address of the other site.

A rate and a delay of bytes, not of packets: no loss, no queue of a router, and TCP's own control works on loopback. The
figures compare contenders in the same lab; they are not those of a real link.
"""

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from novacron.launch.lab.link import Counters, Link

PIECE: Final = 16 * 1024


class _Direction:
    """One direction of the link: its connections share the rate."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free_at = 0.0
        self.bytes = 0
        self.whole = asyncio.Event()  # while it is not set, nothing arrives
        self.whole.set()

    async def carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bytes from one side to the other, paced and late, until their end."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(4, self._link.queue_bytes // PIECE))
        sending = asyncio.create_task(self._send(waiting, writer))
        try:
            while data := await reader.read(PIECE):
                await waiting.put((await self._pass(len(data)), data))
            await waiting.put((self._free_at, b""))
            await sending
            writer.write_eof()  # the other direction may have more to say
        finally:
            sending.cancel()

    async def _pass(self, size: int) -> float:
        """Wait for room on the link; when the last byte arrives at the other end."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / self._link.rate_bytes_s
        self.bytes += size
        await asyncio.sleep(max(0.0, self._free_at - now))
        return self._free_at + self._link.delay_ms / 1000

    async def _send(self, waiting: asyncio.Queue[tuple[float, bytes]], writer: StreamWriter) -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self.whole.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


class RelayLab:
    """Use ``running``."""

    def __init__(self, link: Link, sites: tuple[str, str], why: str) -> None:
        self.link = link
        self.note = f"a TCP relay on loopback ({why}): rate and delay of bytes, no loss"
        self._sites = sites
        self._ways = {site: _Direction(link) for site in sites}  # by the site that is sent from
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, link: Link, sites: tuple[str, str], why: str) -> AsyncIterator[Self]:
        """A lab whose relays end with the context."""
        self = cls(link, sites, why)
        try:
            yield self
        finally:
            tasks = [*self._accepting, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def listen(self, site: str, part: str) -> tuple[str, str]:  # noqa: ARG002 - every part has a relay of its own
        """A free port of loopback, and the relay's port before it."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        front = socket.create_server(("127.0.0.1", 0))
        front.setblocking(False)
        self._accepting.append(asyncio.create_task(self._accept(front, site, port)))
        return f"127.0.0.1:{port}", f"127.0.0.1:{front.getsockname()[1]}"

    async def start(
        self, site: str, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = (), **streams: Any
    ) -> Process:
        """Start a process; all are on this host."""
        del site
        return await asyncio.create_subprocess_exec(
            *command, env=env, pass_fds=pass_fds, start_new_session=True, **streams
        )

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Connections stand still, and go on afterwards with what was sent meanwhile."""
        for way in self._ways.values():
            way.whole.clear()
        try:
            yield
        finally:
            for way in self._ways.values():
                way.whole.set()

    def counters(self) -> tuple[Counters, Counters]:
        """Bytes of TCP payload."""
        first, second = (self._ways[site].bytes for site in self._sites)
        return Counters(first, 0, 0), Counters(second, 0, 0)

    async def _accept(self, front: socket.socket, site: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        with front:
            while True:
                accepted, _ = await loop.sock_accept(front)
                task = asyncio.create_task(self._join(accepted, site, port))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _join(self, accepted: socket.socket, site: str, port: int) -> None:
        """A connection to ``site`` comes from the other one."""
        other = next(name for name in self._sites if name != site)
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(sock=accepted)
            async with _closing(far_writer):
                near_reader, near_writer = await asyncio.open_connection("127.0.0.1", port)
                async with _closing(near_writer):
                    await asyncio.gather(
                        self._ways[other].carry(far_reader, near_writer),
                        self._ways[site].carry(near_reader, far_writer),
                    )


@asynccontextmanager
async def _closing(writer: StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()

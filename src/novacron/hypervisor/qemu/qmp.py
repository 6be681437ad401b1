"""QEMU's monitor protocol: JSON lines on a unix socket, one client a socket.

States: a ``Qmp`` is open from ``connect`` until QEMU closes the socket or ``close`` is called; after that every command
raises QemuDiedError and every subscription ends.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from novacron.hypervisor.driver import MachineEvent
from novacron.hypervisor.errors import QemuDiedError, QmpError

LINE_BYTES: Final = 16 << 20
EVENTS_WAITING: Final = 4096
GREETING_S: Final = 5.0  # a monitor that serves another client greets nobody
_END: Final = None


class Qmp:
    """One connection to a monitor. Commands may be in flight side by side; QEMU answers in order unless out of band."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_id = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._subscribers: set[asyncio.Queue[MachineEvent | None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def connect(cls, path: Path, *, oob: bool = False) -> Self:
        """Connect and negotiate; raises QemuDiedError when nobody listens there, or another client is being served."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
        except OSError as error:
            raise QemuDiedError(f"no QEMU monitor answers at {path}: {error}") from error
        self = cls(reader, writer)
        try:
            async with asyncio.timeout(GREETING_S):
                await reader.readline()
                self._reading = asyncio.create_task(self._read())
                await self.execute("qmp_capabilities", enable=["oob"] if oob else [])
        except (TimeoutError, OSError) as error:
            await self.close()
            raise QemuDiedError(
                f"QEMU's monitor {path} greets nobody: another process may hold it, or its guest waits for memory"
            ) from error
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def closed(self) -> bool:
        """Whether commands are no longer possible."""
        return self._closed

    async def execute(self, command: str, *, out_of_band: bool = False, **arguments: Any) -> Any:
        """QEMU's answer to ``command``; a cancellation leaves the command with QEMU, which may still do it."""
        if self._closed:
            raise QemuDiedError(f"QEMU's monitor is closed: {command} was not sent")
        self._next_id += 1
        number = self._next_id
        request: dict[str, Any] = {"exec-oob" if out_of_band else "execute": command, "id": number}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._writer.write(json.dumps(request).encode() + b"\n")
            await self._writer.drain()
            message = await answer
        except ConnectionError as error:
            raise QemuDiedError(f"QEMU's monitor went away during {command}") from error
        finally:
            self._answers.pop(number, None)
        if "error" in message:
            raise QmpError(command, message["error"].get("class", ""), message["error"].get("desc", ""))
        return message["return"]

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[MachineEvent]]:
        """Subscribe; the iterator ends with the connection."""
        queue: asyncio.Queue[MachineEvent | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(_END)
        self._subscribers.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._subscribers.discard(queue)

    async def close(self) -> None:
        """Leave; QEMU goes on."""
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._end()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError):
            pass  # a monitor that cannot be read is a monitor that is gone: the waiting calls are told below
        finally:
            self._end()
            self._writer.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            event = MachineEvent(message["event"], message.get("data", {}))
            for queue in self._subscribers:
                if queue.qsize() < EVENTS_WAITING:
                    queue.put_nowait(event)
            return
        answer = self._answers.get(message.get("id", -1))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(QemuDiedError("QEMU's monitor went away"))
        for queue in self._subscribers:
            queue.put_nowait(_END)


async def _drain(queue: asyncio.Queue[MachineEvent | None]) -> AsyncIterator[MachineEvent]:
    while (event := await queue.get()) is not _END:
        yield event

"""Talks to the demo guest's workload over a byte stream of its console."""

import asyncio
import json
from typing import Any, Protocol

from novacron.core.errors import VerificationError

LINE_TIMEOUT_S = 60.0


class ConsoleWriter(Protocol):
    """The way to a console: a stream writer, or what looks like one."""

    def write(self, data: bytes, /) -> None:
        """Keep until ``drain``."""
        ...

    async def drain(self) -> None:
        """Send."""
        ...


class WorkloadConsole:
    """Status lines and answers of the workload; other lines (the kernel's) are passed over."""

    def __init__(self, reader: asyncio.StreamReader, writer: ConsoleWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def wait_for(self, key: str, *, timeout_s: float = LINE_TIMEOUT_S) -> dict[str, Any]:
        """The next object that has ``key``; raises VerificationError when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while line := await self._reader.readline():
                    found = _parse(line)
                    if key in found:
                        return found
        except TimeoutError:
            raise VerificationError(f"the guest said nothing of {key!r} for {timeout_s:.0f} s") from None
        raise VerificationError("the guest's console was closed")

    async def check(self, tag: str) -> dict[str, Any]:
        """Let the workload verify every page and every record: what it found."""
        await self._say(f"check {tag}")
        while (found := await self.wait_for("check"))["check"] != tag:
            pass
        return found

    async def reboot(self) -> dict[str, Any]:
        """Boot again: the first status line of the workload's next life."""
        await self._say("reboot")
        await self.wait_for("ready")
        return await self.wait_for("t")

    async def _say(self, line: str) -> None:
        self._writer.write(f"{line}\n".encode())
        await self._writer.drain()


def _parse(line: bytes) -> dict[str, Any]:
    start = line.find(b"{")
    if start < 0:
        return {}
    try:
        found = json.loads(line[start:])
    except ValueError:
        return {}  # a line of the kernel's in the middle of ours
    return found if isinstance(found, dict) else {}

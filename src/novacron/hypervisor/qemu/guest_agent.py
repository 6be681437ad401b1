"""QEMU's guest agent, over its channel: JSON lines, one answer to each.

What was asked before, by somebody who has left, may still be answered: the first answer that counts is that to a number
of our own.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

ANSWERS_WITHIN_S: Final = 2.0  # an agent that is there
FREEZES_WITHIN_S: Final = 5.0


class GuestAgent:
    """``socket``: where QEMU gives access to the channel. An agent that does not answer is not there."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ping(self) -> bool:
        """Whether it is there."""
        return await self._do("guest-ping", within_s=ANSWERS_WITHIN_S)

    async def freeze(self) -> bool:
        """Whether the guest's file systems, at least one, are held now."""
        return await self._do("guest-fsfreeze-freeze", within_s=FREEZES_WITHIN_S, least=1)

    async def thaw(self) -> None:
        """Also when it does not say so."""
        await self._do("guest-fsfreeze-thaw", within_s=FREEZES_WITHIN_S)

    async def _do(self, command: str, *, within_s: float, least: int = 0) -> bool:
        try:
            async with self._there() as (reader, writer), asyncio.timeout(within_s):
                answer = await _ask(reader, writer, {"execute": command})
        except (OSError, EOFError, TimeoutError, ValueError):
            return False
        told = answer.get("return")
        return told is not None and (not least or (isinstance(told, int) and told >= least))

    @asynccontextmanager
    async def _there(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to an agent that has answered just now."""
        number = secrets.randbits(31)
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                writer.write(b"\xff")  # ends what another has begun
                sync = {"execute": "guest-sync", "arguments": {"id": number}}
                answer = await _ask(reader, writer, sync)
                while answer.get("return") != number:
                    answer = await _answer(reader)
            yield reader, writer
        finally:
            writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: object) -> dict[str, object]:
    writer.write(json.dumps(request).encode() + b"\n")
    await writer.drain()
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> dict[str, object]:
    """Raises EOFError at the end, ValueError for what is no object."""
    line = await reader.readline()
    if not line:
        raise EOFError
    answer = json.loads(line.lstrip(b"\xff"))
    if not isinstance(answer, dict):
        raise ValueError("an agent's answer is an object")  # noqa: TRY004 - what it is told by the caller
    return answer

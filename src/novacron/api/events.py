"""``/events``: every change of the cluster, in order, from a version on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from litestar import get
from litestar.response import Stream
from msgspec import Struct

from novacron.api.auth import READ
from novacron.api.given import Asked, FromQuery, ServedController
from novacron.control.controller import Controller
from novacron.core.errors import InvalidInputError
from novacron.database.resources import Change, changes, current_version, watch

BEAT_S: Final = 5.0
KINDS: Final = frozenset(
    {"cluster", "node", "image", "vm", "migration", "backup", "batch", "checkpoint", "repository", "peer"}
)
WAITING: Final = 512  # changes for one reader; one that falls behind further is let go, and asks again from its last


class ChangeEvent(Struct, frozen=True):
    """What one event carries; without a value the resource is gone."""

    version: int
    kind: str
    id: str
    value: msgspec.Raw | None


@get("/events", opt=READ, summary="Watch changes (server-sent events)", operation_id="WatchEvents")
async def watch_events(
    request: Asked,
    controller: ServedController,
    after: FromQuery[int | None] = None,
    kinds: FromQuery[str] = "",
) -> Stream:
    """Changes after ``after`` (or ``Last-Event-ID``, or from now on), of the named kinds (comma-separated)."""
    wanted = _wanted(kinds)
    last = request.headers.get("last-event-id", "")
    start = int(last) if last.isdigit() else after
    if start is None:
        start = await controller.database.read(current_version)
    await controller.database.read(lambda tx: changes(tx, start, 1))  # too old is said as an answer, not in the stream
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(_lines(controller, start, wanted), media_type="text/event-stream", headers=headers)


async def _lines(controller: Controller, start: int, wanted: frozenset[str]) -> AsyncIterator[bytes]:
    """Events as they come, and a comment when none came for a while: a dead connection is noticed by both sides."""
    waiting: asyncio.Queue[Change] = asyncio.Queue(WAITING)

    async def read() -> None:
        with contextlib.suppress(asyncio.QueueFull):
            async for change in watch(controller.database, start):
                if change.kind in wanted:
                    waiting.put_nowait(change)

    reading = asyncio.create_task(read())
    try:
        yield b": watching\n\n"
        while not (reading.done() and waiting.empty()):
            try:
                async with asyncio.timeout(BEAT_S):
                    change = await waiting.get()
            except TimeoutError:
                yield b": beat\n\n"
                continue
            yield _event(change)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _event(change: Change) -> bytes:
    data = msgspec.json.encode(ChangeEvent(change.version, change.kind, change.id, change.body))
    return b"id: %d\nevent: change\ndata: %b\n\n" % (change.version, data)


def _wanted(kinds: str) -> frozenset[str]:
    wanted = frozenset(filter(None, kinds.split(","))) or KINDS
    if not wanted <= KINDS:
        unknown, known = ", ".join(sorted(wanted - KINDS)), ", ".join(sorted(KINDS))
        raise InvalidInputError(f"no such kinds: {unknown}; there are {known}")
    return wanted

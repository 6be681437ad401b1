"""One resource as it changes, and the end of work on it. Events wake; nothing is asked for again and again."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from novacron.cli import events
from novacron.cli.errors import VersionGoneError, WorkFailedError
from novacron.cli.kinds import JOBS, Found, Kind
from novacron.core.errors import NotFoundError, RemoteError
from novacron.protocol.resources import Job

if TYPE_CHECKING:
    from novacron.cli.client import Client

T = TypeVar("T", bound=Struct)
JOB_EVERY_S: Final = 5.0  # jobs change without an event: a beat's time between looks


class Sight(Struct, Generic[T], frozen=True):
    """A resource as it was last seen; ``value`` is None once it is gone, ``lost`` says why nothing newer is known."""

    value: T | None
    version: int = 0
    lost: str = ""


def watch_one(client: "Client", kind: Kind[T], reference: str) -> Iterator[Sight[T]]:
    """How it is now, then each change, for ever; a beat shows the same once more. Ends when it is gone.

    Raises what ``Client.get`` and ``events.watch`` raise.
    """
    yield from _watch(client, kind, client.get(kind, reference))


def _watch(client: "Client", kind: Kind[T], found: Found[T]) -> Iterator[Sight[T]]:
    key: str = found.value.id  # type: ignore[attr-defined]  # every resource has one
    while True:
        yield Sight(found.value, found.version)
        try:
            yield from _changes(client, kind, key, found)
        except VersionGoneError:
            try:
                found = client.get(kind, key)
            except RemoteError as error:
                if error.http_status != NotFoundError.http_status:
                    raise
                yield Sight(None)
                return
        else:
            return


def _changes(client: "Client", kind: Kind[T], key: str, found: Found[T]) -> Iterator[Sight[T]]:
    sight = Sight(found.value, found.version)
    for event in events.watch(client, (kind.event,), found.version):
        if isinstance(event, events.Lost):
            yield msgspec.structs.replace(sight, lost=event.cause)
        elif isinstance(event, events.Beat):
            yield sight
        elif event.id == key:
            value = None if event.value is None else msgspec.json.decode(event.value, type=kind.struct)
            sight = Sight(value, event.version)
            yield sight
            if value is None:
                return


def until(client: "Client", kind: Kind[T], found: Found[T], job_id: str, ended: Callable[[T], bool]) -> Sight[T]:
    """What was ``found``, once ``ended`` holds of it or it is gone; raises WorkFailedError when the job failed."""
    looked = time.monotonic()
    for sight in _watch(client, kind, found):
        if sight.value is not None and ended(sight.value):
            return sight
        if sight.value is None or (not sight.lost and time.monotonic() - looked >= JOB_EVERY_S):
            looked = time.monotonic()
            check_job(client.get(JOBS, job_id).value)
        if sight.value is None:
            return sight
    raise AssertionError  # watch_one shows that it is gone before it ends


def check_job(job: Job) -> None:
    """Raises WorkFailedError when it has failed, or is being undone."""
    if job.problem is not None:
        raise WorkFailedError(
            job.problem.cause,
            code=job.problem.code,
            next_command=job.problem.next_command or f"novacron job show {job.id}",
        )

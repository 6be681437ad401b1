"""``/events``: every change of a cluster, in order, over as many connections as it takes."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from novacron.cli.errors import ApiAnswerError, ApiUnreachableError

if TYPE_CHECKING:
    from novacron.cli.client import Client

SILENCE_S: Final = 15.0  # three beats of the server: the connection is dead
PATIENCE_S: Final = 60.0  # how long a controller that went away (a restart, a cut) is waited for
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 3.0
LONGEST_EVENT: Final = 8 << 20  # bytes
NOTHING: Final = msgspec.Raw(b"null")


class Change(Struct, frozen=True):
    """One change; without a value the resource is gone."""

    version: int
    kind: str
    id: str
    value: msgspec.Raw | None


class _Sent(Struct, frozen=True):
    """A change as it is sent: msgspec tells raw JSON from nothing only by its text."""

    version: int
    kind: str
    id: str
    value: msgspec.Raw = NOTHING


class Beat(Struct, frozen=True):
    """The server is there, and nothing has changed."""


class Lost(Struct, frozen=True):
    """The server does not answer at this moment; it is asked again."""

    cause: str


Event = Change | Beat | Lost


def decode(parts: Iterable[bytes]) -> Iterator[Change | Beat]:
    """Events of a stream's bytes, cut anywhere; raises ApiAnswerError for what is none."""
    waiting = b""
    for part in parts:
        waiting += part
        *events, waiting = waiting.split(b"\n\n")
        if len(waiting) > LONGEST_EVENT:
            raise ApiAnswerError(f"an event of more than {LONGEST_EVENT} bytes")
        yield from map(_event, events)


def _event(text: bytes) -> Change | Beat:
    data = b"\n".join(line[5:].removeprefix(b" ") for line in text.split(b"\n") if line.startswith(b"data:"))
    if not data:
        return Beat()
    try:
        sent = msgspec.json.decode(data, type=_Sent)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ApiAnswerError(f"an event that cannot be read: {error}") from error
    return Change(sent.version, sent.kind, sent.id, None if sent.value == NOTHING else sent.value)


def watch(client: "Client", kinds: Iterable[str], after: int) -> Iterator[Event]:
    """Every change after ``after``, once, for ever.

    Raises VersionGoneError when changes in between are not known any more, ApiUnreachableError when the server stays
    away.
    """
    query = {"kinds": ",".join(kinds)}
    heard = time.monotonic()
    pause = FIRST_PAUSE_S
    while True:
        try:
            query["after"] = str(after)
            with client.stream("GET", "/events", params=query, read_timeout_s=SILENCE_S) as response:
                for event in decode(response.iter_bytes()):
                    if isinstance(event, Change):
                        after = event.version
                    heard, pause = time.monotonic(), FIRST_PAUSE_S
                    yield event
        except ApiUnreachableError as error:
            if time.monotonic() - heard > PATIENCE_S:
                raise
            yield Lost(error.cause)
        time.sleep(pause)  # a server that has let us go: not all of its readers come back at once
        pause = min(pause * 2, LONGEST_PAUSE_S)

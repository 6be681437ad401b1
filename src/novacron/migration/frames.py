"""What two nodes say to each other on the data channel of a migration.

The channel is ordered and bounded (``wire.channel``); a frame is a type and a body. Bodies of bulk frames are content
batches; all others are MessagePack of the structs below. docs/handover.md tells who sends what, when.
"""

from enum import IntEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from novacron.core.errors import NovaCronError, RemoteError
from novacron.core.ids import MigrationId, VmId
from novacron.migration.errors import ChannelProtocolError, MigrationError

PROTOCOL_VERSION: Final = 2
KNOWN_BYTES: Final = 1 << 20  # a frame of digests holds at most this much before compression
MARK_BYTES: Final = KNOWN_BYTES // 16 // 8  # a bit for each digest of such a frame
RELAY_BYTES: Final = 256 * 1024  # a frame of QEMU's own bytes holds at most this much before compression


class FrameType(IntEnum):
    """First byte of a frame."""

    OFFER = 1  # source: what moves
    ANSWER = 2  # destination: agreed, and of which old content it will tell
    RAM = 3  # source: a batch of pages
    DISK = 4  # source: a disk's index (u8), then a batch of blocks
    RELAY = 5  # source: bytes for the destination's QEMU
    RETURN = 6  # destination: bytes for the source's QEMU
    FLUSH = 7  # source: make the disks durable; READY says that they are
    READY = 9  # destination: all is here and durable, at this epoch
    COMMIT = 10  # source: handed over; run
    RUNNING = 11  # destination: it runs
    VERIFIED = 12  # destination: the guest was looked at (a ``Verdict``)
    HELD = 22  # destination, after ANSWER: which groups of a disk's blocks may hold something here
    GROUPS = 20  # destination, then: digests of groups of the blocks that lie here already
    ASK = 21  # source, after each GROUPS: of which of them the blocks shall be told
    KNOWN = 14  # destination, after each ASK: digests of those blocks
    LISTENING = 15  # destination: its QEMU waits for the source's, at this port of its host
    LINE = 16  # either: a numbered piece of what its QEMU says to the other one
    TAKEN = 17  # either: all pieces up to this number were given to its QEMU
    FOLLOW = 18  # source, first on a later channel: the memory that is still missing follows here
    FOLLOWED = 19  # destination: how much of it has come, and whether the QEMUs begin anew
    FAILED = 13  # either: this side gives up, and why (never after READY, nor after COMMIT)


class Known(Struct, frozen=True):
    """A part of what the destination holds: the digests that come next, of groups or of blocks, as a codec frame.

    ``disk`` counts the VM's disks; -1 is its RAM.
    """

    disk: Annotated[int, Meta(ge=-1, le=15)]
    digests: Annotated[bytes, Meta(max_length=KNOWN_BYTES + 64)]


class Marks(Struct, frozen=True):
    """A bit for each of as many groups as a GROUPS frame has, the first in the lowest bit.

    In HELD it is set where something may be that is not zeros, in ASK where the blocks shall be told.
    """

    disk: Annotated[int, Meta(ge=-1, le=15)]
    groups: Annotated[bytes, Meta(max_length=MARK_BYTES)]


class Link(Struct, frozen=True):
    """How the two QEMUs speak with each other: TLS under ``key``, over so many connections."""

    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    channels: Annotated[int, Meta(ge=1, le=16)]


class Offer(Struct, frozen=True):
    """The source's first frame."""

    version: int
    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    configuration: Annotated[bytes, Meta(max_length=64)]  # digest of the canonical specification
    ram_bytes: Annotated[int, Meta(ge=0)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]  # of the digests of this migration's content
    running: bool  # whether the guest runs (else it stays paused over there)
    link: Link | None = None  # the memory goes straight from QEMU to QEMU
    post_copy: bool = False  # a part of the memory follows the guest
    disks: bool = True  # they move, too


class Answer(Struct, frozen=True):
    """Which old content the destination has. GROUPS follow for what it holds: for RAM, then for each disk."""

    ram_held: bool
    disks_known: bool  # they are what the source knows by name
    disks_held: bool  # they are something else


class Listening(Struct, frozen=True):
    """The destination's QEMU waits there."""

    port: Annotated[int, Meta(ge=1, le=65535)]


class Ready(Struct, frozen=True):
    """All is here; ``load_ms`` is what the flush and the load took after the last byte."""

    epoch: int
    load_ms: float


class Commit(Struct, frozen=True):
    """The source's journal says that the VM was handed over at ``epoch``."""

    epoch: int


class Running(Struct, frozen=True):
    """The guest runs here, since ``resume_ms`` after the commit arrived."""

    epoch: int
    resume_ms: float


class Follow(Struct, frozen=True):
    """A channel after the one that broke: of the line ``key`` so many pieces of the other side's were taken.

    No key: nothing is left of it here. ``next_key`` is that of the line that begins where one must.
    """

    epoch: int
    key: Annotated[bytes, Meta(max_length=32)]
    next_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    taken: Annotated[int, Meta(ge=0)]


class Followed(Struct, frozen=True):
    """The answer; ``anew``: of that line nothing is left here, another QEMU connection is waited for."""

    anew: bool
    taken: Annotated[int, Meta(ge=0)]


class Failed(Struct, frozen=True):
    """One side gives up."""

    code: Annotated[str, Meta(max_length=64)]
    cause: Annotated[str, Meta(max_length=4096)]


def gave_up(failed: Failed) -> NovaCronError:
    """The other side's error, under its own code."""
    return RemoteError(
        f"the destination gave up: {failed.cause}",
        code=failed.code,
        exit_code=MigrationError.exit_code,
        http_status=MigrationError.http_status,
    )


M = TypeVar("M", bound=Struct)


def pack(message: Struct) -> bytes:
    """The body of a message's frame."""
    return msgspec.msgpack.encode(message)


def unpack(body: bytes | memoryview, kind: type[M]) -> M:
    """The message in ``body``; raises ChannelProtocolError."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ChannelProtocolError(f"a {kind.__name__} frame cannot be read: {error}") from error

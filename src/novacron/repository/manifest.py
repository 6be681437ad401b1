"""Manifests: what was stored at one time, complete in itself, written last and never changed.

manifest = a frame (``content.codec``, at most 1 GiB) of MessagePack, sealed as the object of its name
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

import msgspec
from msgspec import Struct, field

from novacron.content.codec import decode, encode
from novacron.content.errors import MalformedContentError
from novacron.core.units import GIB
from novacron.repository.chunks import CHUNKER, ID_BYTES
from novacron.repository.errors import DamagedError
from novacron.repository.keys import Keys
from novacron.repository.sealing import open_object, seal_object

FOLDER: Final = "manifests/"
VERSION: Final = 1
MAX_BYTES: Final = GIB
_LEVEL: Final = 3  # of zstd; ids do not compress, runs and facts do


class Run(Struct, frozen=True, array_like=True):
    """Consecutive chunks from number ``first`` on: their ids, 32 bytes each."""

    first: int
    ids: bytes


class Stream(Struct, frozen=True):
    """The content of one file or disk: where no run is, it is zeros."""

    name: str
    size_bytes: int
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, name: str, size_bytes: int, chunks: Mapping[int, bytes]) -> Self:
        """From ids by the numbers of their chunks."""
        runs: list[tuple[int, bytearray]] = []
        for number, identity in sorted(chunks.items()):
            if not runs or runs[-1][0] + len(runs[-1][1]) // ID_BYTES != number:
                runs.append((number, bytearray()))
            runs[-1][1].extend(identity)
        return cls(name, size_bytes, tuple(Run(first, bytes(ids)) for first, ids in runs))

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Numbers and ids, in order."""
        for run in self.runs:
            for at in range(0, len(run.ids), ID_BYTES):
                yield run.first + at // ID_BYTES, run.ids[at : at + ID_BYTES]


class Manifest(Struct, frozen=True):
    """Times are seconds since 1970, UTC; ``facts`` is whatever who stored it wants to know."""

    created_at: float
    streams: tuple[Stream, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    chunker: str = CHUNKER
    version: int = VERSION

    def stream(self, name: str) -> Stream:
        """Raises KeyError."""
        return {stream.name: stream for stream in self.streams}[name]

    def chunk_ids(self) -> Iterator[bytes]:
        """Of all streams; some more than once."""
        return (identity for stream in self.streams for _, identity in stream.chunks())


def seal_manifest(keys: Keys, name: str, manifest: Manifest) -> bytes:
    """The object of this name."""
    return seal_object(keys.manifest, FOLDER + name, encode(msgspec.msgpack.encode(manifest), _LEVEL))


def open_manifest(keys: Keys, name: str, stored: bytes) -> Manifest:
    """Raises DamagedError."""
    frame = open_object(keys.manifest, FOLDER + name, stored)
    try:
        found = msgspec.msgpack.decode(decode(frame, MAX_BYTES), type=Manifest)
    except (MalformedContentError, msgspec.MsgspecError) as error:
        raise DamagedError(f"manifest {name} cannot be read: {error}") from error
    if (found.version, found.chunker) != (VERSION, CHUNKER):
        raise DamagedError(f"manifest {name} is of version {found.version}, cut by {found.chunker}: not known here")
    return found

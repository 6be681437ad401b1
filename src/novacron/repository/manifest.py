"""Manifests: what was stored at one time, complete in itself, written last and never changed.

manifest = a frame (``content.codec``, at most 1 GiB) of MessagePack, sealed as the object of its name
"""

from collections.abc import Iterator
from typing import Any, Final, Self

import msgspec
from msgspec import Struct, field

from novacron.content.codec import decode, encode
from novacron.content.errors import MalformedContentError
from novacron.core.units import GIB
from novacron.repository.chunkers import CHUNKERS
from novacron.repository.chunks import ID_BYTES
from novacron.repository.errors import DamagedError
from novacron.repository.keys import Keys
from novacron.repository.regions import NO_PAGE, regions_of
from novacron.repository.sealing import open_object, seal_object

FOLDER: Final = "manifests/"
VERSION: Final = 1
MAX_BYTES: Final = GIB
_LEVEL: Final = 3  # of zstd; ids do not compress, regions of zeros and facts do


class Stream(Struct, frozen=True):
    """The content of one file or disk: of each region the id of its page (32 bytes); zeros for a region of zeros."""

    name: str
    size_bytes: int
    pages: bytes

    @classmethod
    def empty(cls, name: str, size_bytes: int) -> Self:
        """All zeros."""
        return cls(name, size_bytes, NO_PAGE * regions_of(size_bytes))

    def page(self, region: int) -> bytes:
        """The id of its page, or NO_PAGE."""
        return self.pages[region * ID_BYTES : (region + 1) * ID_BYTES]

    def filled(self) -> Iterator[tuple[int, bytes]]:
        """Numbers of regions that are not all zeros, and the ids of their pages, in order."""
        for region in range(len(self.pages) // ID_BYTES):
            page = self.page(region)
            if page != NO_PAGE:
                yield region, page


class Manifest(Struct, frozen=True):
    """Times are seconds since 1970, UTC; ``facts`` is whatever who stored it wants to know."""

    created_at: float
    chunker: str
    streams: tuple[Stream, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def stream(self, name: str) -> Stream:
        """Raises KeyError."""
        return {stream.name: stream for stream in self.streams}[name]


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
    if found.version != VERSION or found.chunker not in CHUNKERS:
        raise DamagedError(f"manifest {name} is of version {found.version}, cut by {found.chunker}: not known here")
    if any(len(stream.pages) != regions_of(stream.size_bytes) * ID_BYTES for stream in found.streams):
        raise DamagedError(f"manifest {name} cannot be read: a stream's pages are not those of its size")
    return found

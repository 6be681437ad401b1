"""Packs: immutable objects of many chunks, named by the BLAKE3 of all their bytes.

pack    = "NCPACK" 00 01, salt (32), blob*, trailer
blob    = sealed header (52), sealed body       header = id (32), u32 length of the sealed body
trailer = sealed entries, u32 count, u32 length of the sealed entries, "NCPKEND" 01
entry   = id (32), u32 offset of the blob, u32 length of its sealed body

Integers are little-endian. The pack's subkey is HKDF-SHA256(pack key, salt, "novacron pack 1"); nonces are a lane
(0 header, 1 body, 2 trailer) and the offset of the blob or trailer; a body's associated data is its chunk's id.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import blake3

from novacron.core.units import MIB
from novacron.repository.chunks import ID_BYTES, unpack_chunk
from novacron.repository.errors import DamagedError, PackMissingError
from novacron.repository.keys import Keys
from novacron.repository.sealing import SALT_BYTES, TAG_BYTES, Sealer, new_salt
from novacron.repository.store import ObjectMissingError, Store

MAGIC: Final = b"NCPACK\0\x01"
END_MAGIC: Final = b"NCPKEND\x01"
FULL_BYTES: Final = 24 * MIB  # a pack that is larger is closed
FOLDER: Final = "packs/"
HEADER, BODY, TRAILER = 0, 1, 2
_HEADER: Final = struct.Struct(f"<{ID_BYTES}sI")
_ENTRY: Final = struct.Struct(f"<{ID_BYTES}sII")
_END: Final = struct.Struct(f"<II{len(END_MAGIC)}s")
SEALED_HEADER_BYTES: Final = _HEADER.size + TAG_BYTES
START_BYTES: Final = len(MAGIC) + SALT_BYTES


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a chunk lies in a pack."""

    chunk_id: bytes
    offset: int
    length: int  # of the sealed body


class PackBuilder:
    """Takes chunks until it is full. Not safe for two threads at a time."""

    def __init__(self, keys: Keys) -> None:
        salt = new_salt()
        self._sealer = _sealer(keys, salt)
        self._parts = [MAGIC, salt]
        self.size_bytes = START_BYTES
        self.blobs: list[Blob] = []

    def add(self, identity: bytes, frame: bytes) -> None:
        """One more chunk, as its frame."""
        at = self.size_bytes
        body = self._sealer.seal(BODY, at, frame, identity)
        header = self._sealer.seal(HEADER, at, _HEADER.pack(identity, len(body)))
        self.blobs.append(Blob(identity, at, len(body)))
        self._parts += (header, body)
        self.size_bytes += len(header) + len(body)

    def finish(self) -> tuple[str, bytes]:
        """Its name and its bytes."""
        entries = b"".join(_ENTRY.pack(blob.chunk_id, blob.offset, blob.length) for blob in self.blobs)
        sealed = self._sealer.seal(TRAILER, self.size_bytes, entries)
        content = b"".join((*self._parts, sealed, _END.pack(len(self.blobs), len(sealed), END_MAGIC)))
        return blake3.blake3(content).hexdigest(), content


class PackReader:
    """One pack of a store. Every method raises PackMissingError, DamagedError."""

    def __init__(self, store: Store, keys: Keys, pack: str) -> None:
        self._store = store
        self._keys = keys
        self._pack = pack
        start = self._get(0, START_BYTES)
        if start[: len(MAGIC)] != MAGIC or len(start) != START_BYTES:
            raise DamagedError(f"pack {pack[:16]} does not begin as a pack")
        self._sealer = _sealer(keys, start[len(MAGIC) :])

    def chunk(self, identity: bytes, offset: int, length: int) -> bytes:
        """The content of the chunk that lies there, hashed again."""
        return self._open(identity, self._get(offset, SEALED_HEADER_BYTES + length), offset)

    def blobs(self, size_bytes: int) -> list[Blob]:
        """What the trailer of the pack, which has this size, says; where it is damaged, what the headers say."""
        try:
            return self._trailer(size_bytes)
        except DamagedError:
            return list(self._headers(size_bytes))

    def check(self) -> list[Blob]:
        """Read all of it: name, trailer, headers, and the content of every chunk."""
        content = self._get(0, None)
        if blake3.blake3(content).hexdigest() != self._pack:
            raise DamagedError(f"pack {self._pack[:16]} is damaged: its bytes are not those of its name")
        blobs = self._trailer(len(content))
        for blob in blobs:
            end = blob.offset + SEALED_HEADER_BYTES + blob.length
            self._open(blob.chunk_id, content[blob.offset : end], blob.offset)
        return blobs

    def _trailer(self, size_bytes: int) -> list[Blob]:
        end = self._get(max(0, size_bytes - _END.size), _END.size)
        if len(end) != _END.size or not end.endswith(END_MAGIC):
            raise DamagedError(f"pack {self._pack[:16]} does not end as a pack")
        count, length, _ = _END.unpack(end)
        at = size_bytes - _END.size - length
        if at < START_BYTES or length != count * _ENTRY.size + TAG_BYTES:
            raise DamagedError(f"the trailer of pack {self._pack[:16]} is damaged")
        entries = self._sealer.open(TRAILER, at, self._get(at, length))
        return [Blob(*entry) for entry in _ENTRY.iter_unpack(entries)]

    def _headers(self, size_bytes: int) -> Iterator[Blob]:
        """From the first blob on, until one does not open."""
        at = START_BYTES
        while at < size_bytes:
            try:
                identity, length = _HEADER.unpack(self._sealer.open(HEADER, at, self._get(at, SEALED_HEADER_BYTES)))
            except DamagedError:
                return
            yield Blob(identity, at, length)
            at += SEALED_HEADER_BYTES + length

    def _open(self, identity: bytes, stored: bytes, offset: int) -> bytes:
        header, body = stored[:SEALED_HEADER_BYTES], stored[SEALED_HEADER_BYTES:]
        try:
            found, length = _HEADER.unpack(self._sealer.open(HEADER, offset, header))
            if (found, length) != (identity, len(body)):
                raise DamagedError("another chunk lies there")  # noqa: TRY301 - told below as of its pack
            return unpack_chunk(self._sealer.open(BODY, offset, body, identity), identity, self._keys.chunk_id)
        except DamagedError as error:
            raise DamagedError(
                f"chunk {identity.hex()[:16]} in pack {self._pack[:16]} is corrupt: {error.cause}"
            ) from error

    def _get(self, offset: int, length: int | None) -> bytes:
        try:
            return self._store.get(path(self._pack), offset, length)
        except ObjectMissingError:
            raise PackMissingError(f"pack {self._pack[:16]} is missing") from None


def size_of(lengths: Collection[int]) -> int:
    """How large a pack is whose chunks have sealed bodies of these lengths."""
    rest = START_BYTES + TAG_BYTES + _END.size
    return rest + sum(lengths) + len(lengths) * (SEALED_HEADER_BYTES + _ENTRY.size)


def path(pack: str) -> str:
    """The name of its object."""
    return f"{FOLDER}{pack[:2]}/{pack}"


def name_of(stored: str) -> str:
    """The pack's name, by that of its object."""
    return stored.rpartition("/")[2]


def _sealer(keys: Keys, salt: bytes) -> Sealer:
    return Sealer(keys.pack, salt, b"novacron pack 1")

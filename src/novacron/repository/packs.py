"""Packs: immutable objects of many chunks, named by the BLAKE3 of all their bytes.

pack    = "NCPACK" 00 01, salt (32), blob*, trailer
blob    = sealed header (52), sealed body       header = id (32), u32 length of the sealed body
trailer = sealed entries, u32 count, u32 length of the sealed entries, "NCPKEND" 01
entry   = id (32), u32 offset of the blob, u32 length of its sealed body

Integers are little-endian. The pack's subkey is HKDF-SHA256(pack key, salt, "novacron pack 1"); nonces are a lane
(0 header, 1 body, 2 trailer) and the offset of the blob or trailer; a body's associated data is its chunk's id.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
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
FULL_BYTES: Final = 16 * MIB  # a pack that is larger is closed
FOLDER: Final = "packs/"
HEADER, BODY, TRAILER = 0, 1, 2
_HEADER: Final = struct.Struct(f"<{ID_BYTES}sI")
ENTRY: Final = struct.Struct(f"<{ID_BYTES}sII")
_END: Final = struct.Struct(f"<II{len(END_MAGIC)}s")
SEALED_HEADER_BYTES: Final = _HEADER.size + TAG_BYTES
START_BYTES: Final = len(MAGIC) + SALT_BYTES

Blob = tuple[bytes, int, int]  # a chunk's id, where it lies in its pack, the length of its sealed body


class PackBuilder:
    """Takes chunks until it is full. Not safe for two threads at a time."""

    def __init__(self, keys: Keys) -> None:
        salt = new_salt()
        self._sealer = _sealer(keys, salt)
        self._content = bytearray(MAGIC + salt)
        self.entries = bytearray()  # as in its trailer

    def add(self, identity: bytes, frame: bytes) -> None:
        """One more chunk, as its frame."""
        at = len(self._content)
        body = self._sealer.seal(BODY, at, frame, identity)
        header = self._sealer.seal(HEADER, at, _HEADER.pack(identity, len(body)))
        self.entries += ENTRY.pack(identity, at, len(body))
        self._content += header
        self._content += body

    @property
    def full(self) -> bool:
        """Whether it is to be closed."""
        return len(self._content) >= FULL_BYTES

    def finish(self) -> tuple[str, bytes]:
        """Its name and its bytes; nothing can be added then."""
        sealed = self._sealer.seal(TRAILER, len(self._content), self.entries)
        self._content += sealed + _END.pack(len(self.entries) // ENTRY.size, len(sealed), END_MAGIC)
        content = bytes(self._content)
        self._content.clear()
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

    def chunks(self, blobs: Sequence[Blob]) -> Iterator[tuple[bytes, bytes]]:
        """Ids and contents, hashed again, of chunks that lie one after the other: read at once."""
        first, end = blobs[0][1], blobs[-1][1] + SEALED_HEADER_BYTES + blobs[-1][2]
        stored = memoryview(self._get(first, end - first))
        return self._opened(stored, first, blobs)

    def entries(self, size_bytes: int) -> bytes:
        """As in the trailer of the pack, which has this size; where it is damaged, by what the headers say."""
        try:
            return self._trailer(size_bytes)
        except DamagedError:
            return b"".join(ENTRY.pack(*blob) for blob in self._headers(size_bytes))

    def check(self) -> None:
        """Read all of it: name, trailer, headers, and the content of every chunk."""
        content = self._get(0, None)
        if blake3.blake3(content).hexdigest() != self._pack:
            raise DamagedError(f"pack {self._pack[:16]} is damaged: its bytes are not those of its name")
        for _ in self._opened(memoryview(content), 0, ENTRY.iter_unpack(self._trailer(len(content)))):
            pass

    def _trailer(self, size_bytes: int) -> bytes:
        end = self._get(max(0, size_bytes - _END.size), _END.size)
        if len(end) != _END.size or not end.endswith(END_MAGIC):
            raise DamagedError(f"pack {self._pack[:16]} does not end as a pack")
        count, length, _ = _END.unpack(end)
        at = size_bytes - _END.size - length
        if at < START_BYTES or length != count * ENTRY.size + TAG_BYTES:
            raise DamagedError(f"the trailer of pack {self._pack[:16]} is damaged")
        return self._sealer.open(TRAILER, at, self._get(at, length))

    def _headers(self, size_bytes: int) -> Iterator[Blob]:
        """From the first blob on, until one does not open."""
        at = START_BYTES
        while at < size_bytes:
            try:
                identity, length = _HEADER.unpack(self._sealer.open(HEADER, at, self._get(at, SEALED_HEADER_BYTES)))
            except DamagedError:
                return
            yield identity, at, length
            at += SEALED_HEADER_BYTES + length

    def _opened(self, stored: memoryview, first: int, blobs: Iterable[Blob]) -> Iterator[tuple[bytes, bytes]]:
        """``stored``: the pack's bytes from ``first`` on."""
        for identity, offset, length in blobs:
            at = offset - first
            yield identity, self._open(identity, stored[at : at + SEALED_HEADER_BYTES + length], offset)

    def _open(self, identity: bytes, stored: memoryview, offset: int) -> bytes:
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
    return rest + sum(lengths) + len(lengths) * (SEALED_HEADER_BYTES + ENTRY.size)


def path(pack: str) -> str:
    """The name of its object."""
    return f"{FOLDER}{pack[:2]}/{pack}"


def name_of(stored: str) -> str:
    """The pack's name, by that of its object."""
    return stored.rpartition("/")[2]


def _sealer(keys: Keys, salt: bytes) -> Sealer:
    return Sealer(keys.pack, salt, b"novacron pack 1")

"""The index: where each chunk lies. Immutable sorted segments, a cache of what the packs say themselves.

segment = u32 packs, u32 entries, pack* (32), entry* sorted by prefix      sealed as an object (see ``sealing``)
entry   = prefix (the first 16 bytes of an id), u32 pack, u32 offset, u32 length of the sealed body

Integers are little-endian. A segment's object is named by the BLAKE3 of its sealed bytes. Opened segments lie in a
folder at this machine and are mapped: copy = segment, BLAKE3 of it under the index key (32 bytes).
"""

import contextlib
import mmap
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3

from novacron.content.records import PREFIX_BYTES, find_records
from novacron.repository.errors import DamagedError, IndexDamagedError
from novacron.repository.keys import Keys
from novacron.repository.packs import ENTRY as PACK_ENTRY
from novacron.repository.sealing import open_object, seal_object
from novacron.repository.store import ObjectExistsError, Store

FOLDER: Final = "index/"
SEGMENT_ENTRIES: Final = 1 << 18  # a new segment begins when one has as many
CHECK_BYTES: Final = 32
_COUNTS: Final = struct.Struct("<II")
_PACK: Final = struct.Struct("<32s")
_ENTRY: Final = struct.Struct(f"<{PREFIX_BYTES}sIII")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk lies."""

    pack: str
    offset: int
    length: int


class Segment:
    """One segment, looked up where it lies; raises IndexDamagedError when its bytes do not add up."""

    def __init__(self, name: str, content: bytes | mmap.mmap, size_bytes: int) -> None:
        self.name = name
        self._content = content
        packs, self.entries = _COUNTS.unpack_from(content)
        self._first = _COUNTS.size + packs * _PACK.size
        if size_bytes != self._first + self.entries * _ENTRY.size:
            raise IndexDamagedError(f"segment {name[:16]} of the index is damaged")
        self.packs = [_PACK.unpack_from(content, _COUNTS.size + i * _PACK.size)[0].hex() for i in range(packs)]

    def find(self, prefixes: bytes) -> Iterator[tuple[int, Place]]:
        """Of many prefixes, one after the other: the number of each one, with every place that is known of it."""
        for number, entry in find_records(self._content, self._first, self.entries, _ENTRY.size, prefixes):
            yield number, self._entry(entry)[1]

    def every(self) -> Iterator[tuple[bytes, Place]]:
        """Prefixes and places, in order."""
        return map(self._entry, range(self.entries))

    def _entry(self, number: int) -> tuple[bytes, Place]:
        prefix, pack, offset, length = _ENTRY.unpack_from(self._content, self._first + number * _ENTRY.size)
        return prefix, Place(self.packs[pack], offset, length)


class Index:
    """All segments. ``doomed`` are packs with a tombstone: their chunks are found last."""

    def __init__(self, store: Store, keys: Keys, cache: Path) -> None:
        self._store = store
        self._keys = keys
        self._cache = cache
        self.segments: dict[str, Segment] = {}
        self.doomed: AbstractSet[str] = frozenset()

    def refresh(self) -> None:
        """Know what the store has now; raises IndexDamagedError."""
        names = {stored.name.removeprefix(FOLDER) for stored in self._store.list(FOLDER)}
        self.segments = {name: self.segments.get(name) or self._load(name) for name in sorted(names)}
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._cache.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def find(self, identities: Sequence[bytes]) -> list[list[Place]]:
        """Where each of these chunks lies, packs that stay first. Many at once cost less."""
        prefixes = b"".join(identity[:PREFIX_BYTES] for identity in identities)
        found: list[list[Place]] = [[] for _ in identities]
        for segment in tuple(self.segments.values()):
            for number, place in segment.find(prefixes):
                found[number].append(place)
        for places in found:
            places.sort(key=lambda place: place.pack in self.doomed)
        return found

    def packs(self) -> set[str]:
        """Names of all packs that it knows."""
        return {pack for segment in self.segments.values() for pack in segment.packs}

    def add(self, packs: Mapping[str, bytes | bytearray]) -> str | None:
        """A new segment of these packs, by the entries of their trailers; its name."""
        if not packs:
            return None
        content = _segment(packs)
        sealed = seal_object(self._keys.index, "index", content)
        name = blake3.blake3(sealed).hexdigest()
        with contextlib.suppress(ObjectExistsError):  # a name is that of its bytes
            self._store.put(FOLDER + name, sealed)
        self.segments[name] = self._keep(name, content)
        return name

    def replace(self, stale: Iterable[Segment], stays: Callable[[str], bool]) -> None:
        """Each of ``stale`` written anew, with the packs that stay."""
        for segment in stale:
            packs: dict[str, bytearray] = {}
            for prefix, place in segment.every():
                if stays(place.pack):
                    entries = packs.setdefault(place.pack, bytearray())
                    entries += PACK_ENTRY.pack(prefix, place.offset, place.length)
            if self.add(packs) != segment.name:
                self.drop([segment.name])

    def drop(self, names: Iterable[str]) -> None:
        """Segments that others stand for now."""
        for name in names:
            self._store.delete(FOLDER + name)
            self.segments.pop(name, None)
            (self._cache / name).unlink(missing_ok=True)

    def _load(self, name: str) -> Segment:
        """From the copy at this machine, else from the store."""
        with contextlib.suppress(OSError, ValueError, DamagedError):  # there is no copy, or a bad one: the store has it
            return self._mapped(name)
        sealed = self._store.get(FOLDER + name)
        try:
            return self._keep(name, open_object(self._keys.index, "index", sealed))
        except (DamagedError, struct.error):
            raise IndexDamagedError(f"segment {name[:16]} of the index is damaged") from None

    def _keep(self, name: str, content: bytes) -> Segment:
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self._cache / secrets.token_hex(8)
        aside.write_bytes(content + self._check(content))
        aside.replace(self._cache / name)
        return self._mapped(name)

    def _mapped(self, name: str) -> Segment:
        with (self._cache / name).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = len(mapped) - CHECK_BYTES
        with memoryview(mapped) as view:
            if size < _COUNTS.size or self._check(view[:size]) != view[size:]:
                raise DamagedError("the copy is damaged")
        return Segment(name, mapped, size)

    def _check(self, content: bytes | memoryview) -> bytes:
        return blake3.blake3(content, key=self._keys.index).digest()


def _segment(packs: Mapping[str, bytes | bytearray]) -> bytes:
    names = sorted(packs)
    entries = sorted(
        _ENTRY.pack(identity[:PREFIX_BYTES], number, offset, length)
        for number, name in enumerate(names)
        for identity, offset, length in PACK_ENTRY.iter_unpack(packs[name])
    )
    head = _COUNTS.pack(len(names), len(entries)) + b"".join(bytes.fromhex(name) for name in names)
    return b"".join((head, *entries))

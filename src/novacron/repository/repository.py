"""A repository: packs of chunks, an index of them, and manifests that say what they make up.

envelope       the repository's key                 packs/<2>/<64>     chunks
index/<64>     where chunks lie                     manifests/<name>   what was stored at one time
tombstones/<64>  a pack that is going, or damaged

docs/repository.md specifies the bytes. Everything here blocks: call it in threads.
"""

import contextlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Final, Self

from novacron.repository import manifest as manifests, packs
from novacron.repository.errors import (
    ChunkUnknownError,
    DamagedError,
    ManifestExistsError,
    ManifestUnknownError,
    RepositoryError,
    RepositoryExistsError,
    RepositoryMissingError,
)
from novacron.repository.index import FOLDER as INDEX, Index
from novacron.repository.keys import Keys, Secret, close_envelope, open_envelope
from novacron.repository.manifest import Manifest
from novacron.repository.packs import Blob, PackReader
from novacron.repository.sealing import open_object, seal_object
from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store

ENVELOPE: Final = "envelope"
TOMBSTONES: Final = "tombstones/"
READERS: Final = 64  # packs whose subkey is kept


class Repository:
    """``create`` or ``open`` one. Safe for several threads."""

    def __init__(self, store: Store, keys: Keys, cache: Path) -> None:
        self.store = store
        self.keys = keys
        self.index = Index(store, keys, cache)
        self._readers: OrderedDict[str, PackReader] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def create(cls, store: Store, secret: Secret, cache: Path) -> Self:
        """A new one, with a key of its own in an envelope for ``secret``; raises RepositoryExistsError."""
        keys = Keys.new()
        try:
            store.put(ENVELOPE, close_envelope(keys, secret))
        except ObjectExistsError:
            raise RepositoryExistsError("there is a repository in that place already") from None
        return cls(store, keys, cache)

    @classmethod
    def open(cls, store: Store, secret: Secret, cache: Path) -> Self:
        """Raises RepositoryMissingError, WrongKeyError, DamagedError (of the envelope alone: see ``refresh``)."""
        try:
            envelope = store.get(ENVELOPE)
        except ObjectMissingError:
            raise RepositoryMissingError("there is no repository in that place") from None
        return cls(store, open_envelope(envelope, secret), cache)

    def refresh(self) -> None:
        """Know what others have stored and marked meanwhile; raises IndexDamagedError."""
        self.index.refresh()
        self.index.doomed = frozenset(self.tombstones())

    def tombstones(self) -> dict[str, str]:
        """Packs that are going, or are damaged, and which it is."""
        found = {}
        for stored in self.store.list(TOMBSTONES):
            try:
                reason = open_object(self.keys.tombstone, stored.name, self.store.get(stored.name))
            except ObjectMissingError:
                continue  # it has gone meanwhile
            found[packs.name_of(stored.name)] = reason.decode()
        return found

    def mark(self, pack: str, reason: str) -> None:
        """Put a tombstone; harmless when there is one."""
        name = TOMBSTONES + pack
        with contextlib.suppress(ObjectExistsError):
            self.store.put(name, seal_object(self.keys.tombstone, name, reason.encode()))

    def unmark(self, pack: str) -> None:
        """Take a tombstone away."""
        self.store.delete(TOMBSTONES + pack)

    def manifests(self) -> list[str]:
        """Names, in order."""
        return sorted(stored.name.removeprefix(manifests.FOLDER) for stored in self.store.list(manifests.FOLDER))

    def manifest(self, name: str) -> Manifest:
        """Raises ManifestUnknownError, DamagedError."""
        try:
            stored = self.store.get(manifests.FOLDER + name)
        except ObjectMissingError:
            raise ManifestUnknownError(f"the repository has no {name}") from None
        return manifests.open_manifest(self.keys, name, stored)

    def put_manifest(self, name: str, manifest: Manifest) -> None:
        """Raises ManifestExistsError."""
        try:
            self.store.put(manifests.FOLDER + name, manifests.seal_manifest(self.keys, name, manifest))
        except ObjectExistsError:
            raise ManifestExistsError(f"the repository has {name} already") from None

    def delete_manifest(self, name: str) -> None:
        """What it alone refers to goes at the next ``prune``; harmless when it is not there."""
        self.store.delete(manifests.FOLDER + name)

    def chunk(self, identity: bytes) -> bytes:
        """Its content; raises ChunkUnknownError, PackMissingError, DamagedError."""
        trouble: RepositoryError = ChunkUnknownError(f"the index knows no place of chunk {identity.hex()[:16]}")
        for place in self.index.places(identity):
            try:
                return self._reader(place.pack).chunk(identity, place.offset, place.length)
            except DamagedError as error:
                trouble = error  # another pack may have it too
        raise trouble

    def packs(self) -> dict[str, tuple[int, float]]:
        """What the store has: size in bytes, and when it was put."""
        listed = self.store.list(packs.FOLDER)
        return {packs.name_of(stored.name): (stored.size_bytes, stored.modified_at) for stored in listed}

    def rebuild_index(self) -> int:
        """One segment from what every pack says, in the place of all others; how many packs it knows."""
        found: dict[str, list[Blob]] = {}
        for name, (size, _) in self.packs().items():
            with contextlib.suppress(DamagedError):  # what does not begin as a pack tells nothing
                found[name] = PackReader(self.store, self.keys, name).blobs(size)
        old = [stored.name.removeprefix(INDEX) for stored in self.store.list(INDEX)]
        new = self.index.add(found)
        self.index.drop(name for name in old if name != new)
        return len(found)

    def _reader(self, pack: str) -> PackReader:
        with self._lock:
            if pack in self._readers:
                self._readers.move_to_end(pack)
                return self._readers[pack]
        reader = PackReader(self.store, self.keys, pack)
        with self._lock:
            self._readers[pack] = reader
            if len(self._readers) > READERS:
                self._readers.popitem(last=False)
        return reader

"""A repository: packs of chunks, an index of them, and manifests that say what they make up.

envelope       the repository's key                 packs/<2>/<64>     chunks
index/<64>     where chunks lie                     manifests/<name>   what was stored at one time
traits         what the store can do                tombstones/<64>    a pack that is going, or damaged

docs/repository.md specifies the bytes. Everything here blocks: call it in threads.
"""

import contextlib
import time
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Final, Self

import structlog

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
from novacron.repository.probe import probe
from novacron.repository.sealing import open_object, seal_object
from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store
from novacron.repository.traits import NAME as TRAITS, Traits, decode_traits

ENVELOPE: Final = "envelope"
TOMBSTONES: Final = "tombstones/"
READERS: Final = 64  # packs whose subkey is kept
log = structlog.get_logger()


class Repository:
    """``create`` or ``open`` one. Safe for several threads."""

    def __init__(self, store: Store, keys: Keys, cache: Path, traits: Traits) -> None:
        self.store = traits.fit(store)
        self.keys = keys
        self.traits = traits
        self.index = Index(self.store, keys, cache)
        self._readers: OrderedDict[str, PackReader] = OrderedDict()
        self._lock = Lock()
        for weakness in traits.weaknesses():
            log.warning("repository_store_weak", cause=weakness)

    @classmethod
    def create(cls, store: Store, secret: Secret, cache: Path) -> Self:
        """A new one, with a key of its own in an envelope for ``secret``; the store is probed first.

        Raises RepositoryExistsError, StoreUnfitError.
        """
        if _envelope(store) is not None:
            raise RepositoryExistsError("there is a repository in that place already")
        traits = _probed(store)
        keys = Keys.new()
        envelope = close_envelope(keys, secret)
        with contextlib.suppress(ObjectExistsError):
            traits.fit(store).put(ENVELOPE, envelope)
        if _envelope(store) != envelope:  # also where a weak store lets two put it
            raise RepositoryExistsError("there is a repository in that place already")
        return cls(store, keys, cache, traits)

    @classmethod
    def open(cls, store: Store, secret: Secret, cache: Path) -> Self:
        """Raises RepositoryMissingError, WrongKeyError, DamagedError (not of the index: see ``refresh``)."""
        envelope = _envelope(store)
        if envelope is None:
            raise RepositoryMissingError("there is no repository in that place")
        keys = open_envelope(envelope, secret)
        try:
            traits = decode_traits(store.get(TRAITS))
        except ObjectMissingError:
            traits = _probed(store)
        return cls(store, keys, cache, traits)

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


def _envelope(store: Store) -> bytes | None:
    try:
        return store.get(ENVELOPE)
    except ObjectMissingError:
        return None


def _probed(store: Store) -> Traits:
    """What the store can do, found out now and written down."""
    traits = probe(store, now=time.time())
    store.delete(TRAITS)  # of one that was broken off
    with contextlib.suppress(ObjectExistsError):  # another has found the same
        store.put(TRAITS, traits.encode())
    return traits

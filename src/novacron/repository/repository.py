"""A repository: packs of chunks, an index of them, and manifests that say what they make up.

envelope       the repository's key                 packs/<2>/<64>     chunks
recovery       the same, for the recovery key
index/<64>     where chunks lie                     manifests/<name>   what was stored at one time
traits         what the store can do                tombstones/<64>    a pack that is going, or damaged

docs/repository.md specifies the bytes. Everything here blocks: call it in threads.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, Self

import structlog

from novacron.repository import manifest as manifests, packs
from novacron.repository.chunkers import CHUNKERS, FIXED, Chunker
from novacron.repository.errors import (
    ChunkUnknownError,
    DamagedError,
    ManifestExistsError,
    ManifestUnknownError,
    RepositoryError,
    RepositoryExistsError,
    RepositoryMissingError,
    WrongKeyError,
)
from novacron.repository.index import FOLDER as INDEX, SEGMENT_ENTRIES, Index, Place
from novacron.repository.keys import Keys, Secret, check_envelope, close_envelope, open_envelope
from novacron.repository.manifest import Manifest
from novacron.repository.packs import ENTRY, SEALED_HEADER_BYTES, Blob, PackReader
from novacron.repository.probe import probe
from novacron.repository.regions import Part, read_page
from novacron.repository.sealing import open_object, seal_object
from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store
from novacron.repository.traits import NAME as TRAITS, Traits, decode_traits

ENVELOPE: Final = "envelope"
RECOVERY: Final = "recovery"
TOMBSTONES: Final = "tombstones/"
READERS: Final = 64  # packs whose subkey is kept
log = structlog.get_logger()


class Repository:
    """``create`` or ``open`` one. Safe for several threads."""

    def __init__(self, store: Store, keys: Keys, chunker: Chunker, cache: Path, traits: Traits) -> None:
        self.store = traits.fit(store)
        self.keys = keys
        self.chunker = chunker
        self.traits = traits
        self.index = Index(self.store, keys, cache)
        self._readers: OrderedDict[str, PackReader] = OrderedDict()
        self._lock = Lock()
        for weakness in traits.weaknesses():
            log.warning("repository_store_weak", cause=weakness)

    @classmethod
    def create(
        cls, store: Store, secret: Secret, cache: Path, chunker: Chunker = FIXED, repository_id: str = ""
    ) -> Self:
        """A new one, with a key of its own in an envelope for ``secret``; the store is probed first.

        Raises RepositoryExistsError, StoreUnfitError.
        """
        if _envelope(store) is not None:
            raise RepositoryExistsError("there is a repository in that place already")
        traits = _probed(store)
        keys = Keys.new(repository_id)
        envelope = close_envelope(keys, chunker.name, secret)
        with contextlib.suppress(ObjectExistsError):
            traits.fit(store).put(ENVELOPE, envelope)
        if _envelope(store) != envelope:  # also where a weak store lets two put it
            raise RepositoryExistsError("there is a repository in that place already")
        return cls(store, keys, chunker, cache, traits)

    @classmethod
    def open(cls, store: Store, secret: Secret, cache: Path) -> Self:
        """Raises RepositoryMissingError, WrongKeyError, DamagedError (not of the index: see ``refresh``)."""
        envelope = _envelope(store)
        if envelope is None:
            raise RepositoryMissingError("there is no repository in that place")
        if secret.how == RECOVERY:
            envelope = _envelope(store, RECOVERY)
            if envelope is None:
                raise WrongKeyError("the repository has no recovery key")
        keys, chunker = open_envelope(envelope, secret)
        if chunker not in CHUNKERS:
            raise DamagedError(f"the repository is cut by {chunker}, which is not known here")
        try:
            traits = decode_traits(store.get(TRAITS))
        except ObjectMissingError:
            traits = _probed(store)
        return cls(store, keys, CHUNKERS[chunker], cache, traits)

    def add_recovery(self, secret: Secret) -> None:
        """Let a recovery key open it too; harmless when one does already, which stays the one."""
        with contextlib.suppress(ObjectExistsError):
            self.store.put(RECOVERY, close_envelope(self.keys, self.chunker.name, secret))

    @property
    def has_recovery(self) -> bool:
        """Whether a recovery key opens it."""
        return _envelope(self.store, RECOVERY) is not None

    def check_envelopes(self) -> None:
        """Raises RepositoryMissingError, DamagedError."""
        if (envelope := _envelope(self.store)) is None:
            raise RepositoryMissingError("the envelope of the repository's key is gone")
        check_envelope(envelope)
        if (recovery := _envelope(self.store, RECOVERY)) is not None:
            check_envelope(recovery)

    def unmake(self) -> None:
        """Take a repository away in which nothing was ever stored; raises RepositoryExistsError when something was."""
        if self.packs() or self.manifests():
            raise RepositoryExistsError("the repository is not empty")
        for name in (TRAITS, RECOVERY, ENVELOPE):
            self.store.delete(name)

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
        for place in self.index.find([identity])[0]:
            try:
                ((_, content),) = self._reader(place.pack).chunks([(identity, place.offset, place.length)])
            except DamagedError as error:
                trouble = error  # another pack may have it too
            else:
                return content
        raise trouble

    def chunks(self, identities: Sequence[bytes]) -> dict[bytes, bytes]:
        """Their contents, neighbours in a pack read at once; raises as ``chunk`` does."""
        found: dict[bytes, bytes] = {}
        for pack, blobs in _neighbours(dict(zip(identities, self.index.find(identities), strict=True))):
            with contextlib.suppress(DamagedError):  # ``chunk`` looks for another pack
                found.update(self._reader(pack).chunks(blobs))
        for identity in identities:
            if identity not in found:
                found[identity] = self.chunk(identity)
        return found

    def page(self, identity: bytes) -> list[Part]:
        """What makes up a region; raises as ``chunk`` does."""
        return read_page(self.chunk(identity))

    def needs(self, manifest: Manifest, passed: set[bytes]) -> Iterator[bytes]:
        """Ids of its pages and of the chunks that they name, but for pages in ``passed``, to which they are added.

        Some come more than once. Raises as ``chunk`` does.
        """
        for stream in manifest.streams:
            for _, page in stream.filled():
                if page not in passed:
                    yield page
                    yield from (part.identity for part in self.page(page))
                    passed.add(page)

    def packs(self) -> dict[str, tuple[int, float]]:
        """What the store has: size in bytes, and when it was put."""
        listed = self.store.list(packs.FOLDER)
        return {packs.name_of(stored.name): (stored.size_bytes, stored.modified_at) for stored in listed}

    def rebuild_index(self) -> int:
        """Segments from what every pack says, in the place of all others; how many packs they know."""
        old = {stored.name.removeprefix(INDEX) for stored in self.store.list(INDEX)}
        new, found, known = set(), dict[str, bytes](), 0
        for name, (size, _) in sorted(self.packs().items()):
            with contextlib.suppress(DamagedError):  # what does not begin as a pack tells nothing
                found[name] = PackReader(self.store, self.keys, name).entries(size)
                known += 1
            if sum(map(len, found.values())) >= SEGMENT_ENTRIES * ENTRY.size:
                new.add(self.index.add(found))
                found = {}
        new.add(self.index.add(found))
        self.index.drop(old - new)
        return known

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


def _envelope(store: Store, name: str = ENVELOPE) -> bytes | None:
    try:
        return store.get(name)
    except ObjectMissingError:
        return None


def _probed(store: Store) -> Traits:
    """What the store can do, found out now and written down."""
    traits = probe(store, now=time.time())
    store.delete(TRAITS)  # of one that was broken off
    with contextlib.suppress(ObjectExistsError):  # another has found the same
        store.put(TRAITS, traits.encode())
    return traits


def _neighbours(places: Mapping[bytes, Sequence[Place]]) -> Iterator[tuple[str, list[Blob]]]:
    """Chunks by where they lie first, those together that lie one after the other in a pack."""
    chosen = sorted(
        (found[0].pack, found[0].offset, found[0].length, identity) for identity, found in places.items() if found
    )
    run: tuple[str, list[Blob]] | None = None
    end = 0
    for pack, offset, length, identity in chosen:
        if run is None or run[0] != pack or offset != end:
            if run is not None:
                yield run
            run = pack, []
        run[1].append((identity, offset, length))
        end = offset + SEALED_HEADER_BYTES + length
    if run is not None:
        yield run

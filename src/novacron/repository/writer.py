"""Storing: streams are cut, looked up, packed and put; then one manifest makes them count.

The order makes it safe: packs, then the index, then the manifest. What is broken off leaves packs that nothing refers
to, which ``prune`` removes. A chunk in a pack that may go (it has a tombstone) is stored again. Whether one that is
used got a tombstone meanwhile is asked before the manifest is put, and again after: then whoever removes packs has
seen the manifest, or this writer sees what was removed, and takes the manifest back (VanishingPackError).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from threading import Lock
from typing import Final

from novacron.core.errors import InternalError
from novacron.repository.chunks import CHUNK_BYTES, chunk_id, is_zero, pack_chunk
from novacron.repository.errors import VanishingPackError
from novacron.repository.manifest import Manifest
from novacron.repository.packs import FULL_BYTES, Blob, PackBuilder, path
from novacron.repository.repository import Repository
from novacron.repository.store import ObjectExistsError

AT_A_TIME: Final = 4  # pieces in threads: two more than compress, so that none waits for the store

Piece = tuple[int, bytes]  # offset and content: whole chunks, the stream's last one may be shorter


@dataclass(slots=True)
class Written:
    """What a writer has done so far."""

    read_bytes: int = 0
    new_chunks: int = 0
    new_bytes: int = 0  # of those chunks, as they were
    stored_bytes: int = 0  # of packs


class Writer:
    """One manifest's worth of storing. ``store`` content, then ``commit`` what it makes up."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._keys = repository.keys
        self._lock = Lock()
        self._claimed: set[bytes] = set()  # chunks that need not be stored (again)
        self._used: set[str] = set()  # packs of others that this manifest leans on
        self._pack = PackBuilder(self._keys)
        self._packs: dict[str, list[Blob]] = {}
        self.written = Written()

    async def store(self, pieces: AsyncIterator[Piece]) -> dict[int, bytes]:
        """Ids by the numbers of chunks that are not zeros. Raises RepositoryError, and what ``pieces`` does.

        A cancellation, or an error, leaves packs that nothing refers to.
        """
        found: dict[int, bytes] = {}
        working: deque[asyncio.Task[list[tuple[int, bytes]]]] = deque()

        async def take() -> None:
            found.update(await working[0])
            working.popleft()

        try:
            async for offset, data in pieces:
                if len(working) == AT_A_TIME:
                    await take()
                working.append(asyncio.create_task(asyncio.to_thread(self._work, offset, data)))
            while working:
                await take()
        finally:
            await asyncio.gather(*working, return_exceptions=True)
        return found

    def flush(self) -> None:
        """Put what waits for a pack to be full: ``written`` tells all then. Blocks."""
        if self._pack.blobs:
            last, self._pack = self._pack, PackBuilder(self._keys)
            self._put(last)

    def commit(self, name: str, manifest: Manifest) -> None:
        """Make what was stored count; raises VanishingPackError, ManifestExistsError. Blocks."""
        repository = self._repository
        self.flush()
        repository.index.add(self._packs)
        self._check_used(self._used & repository.tombstones().keys())
        repository.put_manifest(name, manifest)
        try:
            self._check_used((self._used - repository.packs().keys()) | (self._used & repository.tombstones().keys()))
        except BaseException:
            repository.delete_manifest(name)
            raise

    @staticmethod
    def _check_used(gone: set[str]) -> None:
        if gone:
            raise VanishingPackError(f"{len(gone)} packs that were to be used again are being removed")

    def _work(self, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        """Numbers and ids of the chunks of one piece that are not zeros, all of them stored."""
        number, rest = divmod(offset, CHUNK_BYTES)
        if rest:
            raise InternalError(f"a piece of a stream begins at {offset}, within a chunk")
        found = []
        for at in range(0, len(data), CHUNK_BYTES):
            chunk = data[at : at + CHUNK_BYTES]
            if not is_zero(chunk):
                identity = chunk_id(chunk, self._keys.chunk_id)
                found.append((number + at // CHUNK_BYTES, identity))
                if self._claim(identity):
                    self._add(identity, pack_chunk(chunk, identity, self._keys.chunk_id), len(chunk))
        with self._lock:
            self.written.read_bytes += len(data)
        return found

    def _claim(self, identity: bytes) -> bool:
        """Whether this chunk is to be stored, by this caller."""
        with self._lock:
            if identity in self._claimed:
                return False
            self._claimed.add(identity)
            place = self._repository.index.safe(identity)
            if place is not None:
                self._used.add(place.pack)
            return place is None

    def _add(self, identity: bytes, frame: bytes, raw_bytes: int) -> None:
        full = None
        with self._lock:
            self._pack.add(identity, frame)
            self.written.new_chunks += 1
            self.written.new_bytes += raw_bytes
            if self._pack.size_bytes >= FULL_BYTES:
                full, self._pack = self._pack, PackBuilder(self._keys)
        if full is not None:
            self._put(full)

    def _put(self, pack: PackBuilder) -> None:
        name, content = pack.finish()
        try:
            self._repository.store.put(path(name), content)
        except ObjectExistsError:
            raise InternalError(f"two packs have one name: {name}") from None  # the salt is random
        with self._lock:
            self._packs[name] = pack.blobs
            self.written.stored_bytes += len(content)

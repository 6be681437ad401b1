"""Storing: streams are cut, looked up, packed and put; then one manifest makes them count.

The order makes it safe: packs, then the index, then the manifest. What is broken off leaves packs that nothing refers
to, which ``prune`` removes. A chunk in a pack that may go (it has a tombstone) is stored again. Whether one that is
used got a tombstone meanwhile is asked before the manifest is put, and again after: then whoever removes packs has
seen the manifest, or this writer sees what was removed, and takes the manifest back (VanishingPackError).

What is kept in memory does not grow with what is stored: the places of new chunks go into a segment of the index
whenever there are as many as one holds.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from typing_extensions import Buffer

from novacron.core.errors import InternalError
from novacron.core.units import PAGE_BYTES
from novacron.repository.chunks import ID_BYTES, chunk_id, pack_chunk
from novacron.repository.errors import VanishingPackError
from novacron.repository.index import SEGMENT_ENTRIES
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.packs import ENTRY, PackBuilder, path
from novacron.repository.regions import (
    NO_PAGE,
    REGION_BYTES,
    NewContent,
    Part,
    Piece,
    by_regions,
    make_page,
    read_page,
    without,
)
from novacron.repository.repository import Repository
from novacron.repository.store import ObjectExistsError

AT_A_TIME: Final = 4  # regions in threads: two more than compress, so that none waits for the store


@dataclass(slots=True)
class Written:
    """What a writer has done so far."""

    read_bytes: int = 0
    new_chunks: int = 0  # of content
    new_bytes: int = 0  # of those chunks, as they were
    stored_bytes: int = 0  # of packs


class Writer:
    """One manifest's worth of storing. ``store`` content, then ``commit`` what it makes up."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._keys = repository.keys
        self._lock = Lock()
        self._claimed: set[bytes] = set()  # new chunks that the index does not know yet
        self._used: set[str] = set()  # packs that this manifest leans on
        self._content = PackBuilder(self._keys)
        self._pages = PackBuilder(self._keys)
        self._new_pages: dict[bytes, bytes] = {}  # content of pages that cannot be read back yet
        self._packs: dict[str, bytes] = {}  # entries of packs that the index does not know yet
        self.unit_bytes = repository.chunker.unit_bytes
        self.written = Written()

    async def store(self, onto: Stream, pieces: AsyncIterator[Piece]) -> Stream:
        """``onto`` with new content, zeros included, from ``pieces``: ascending, of whole units of the chunker.

        Raises RepositoryError, and what ``pieces`` does. A cancellation, or an error, leaves packs that nothing needs.
        """
        pages = bytearray(onto.pages)
        working: deque[tuple[int, asyncio.Task[bytes]]] = deque()

        async def take() -> None:
            region, work = working[0]
            pages[region * ID_BYTES : (region + 1) * ID_BYTES] = await work
            working.popleft()

        try:
            async for new in by_regions(pieces):
                if len(working) == AT_A_TIME:
                    await take()
                working.append((new.region, asyncio.create_task(asyncio.to_thread(self._work, onto, new))))
            while working:
                await take()
        finally:
            await asyncio.gather(*(work for _, work in working), return_exceptions=True)
        return Stream(onto.name, onto.size_bytes, bytes(pages))

    def flush(self) -> None:
        """Put what waits for a pack to be full: ``written`` tells all then. Blocks."""
        for pack in (self._content, self._pages):
            if pack.entries:
                self._put(pack)
        self._content, self._pages = PackBuilder(self._keys), PackBuilder(self._keys)

    def commit(self, name: str, manifest: Manifest) -> None:
        """Make what was stored count; raises VanishingPackError, ManifestExistsError. Blocks."""
        repository = self._repository
        self.flush()
        self._tell_index(self._packs)
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
            raise VanishingPackError(f"{len(gone)} packs that are used are being removed")

    def _work(self, onto: Stream, new: NewContent) -> bytes:
        """All chunks of a region that are not zeros, stored; the id of its page."""
        parts, contents = self._cut(onto.size_bytes - new.region * REGION_BYTES, new)
        self._store_chunks(contents)
        old = onto.page(new.region)
        if old != NO_PAGE and sum(len(content) for _, content in new.runs) < REGION_BYTES:
            parts += without(self._page(old), new.runs)
        with self._lock:
            self.written.read_bytes += sum(len(content) for _, content in new.runs)
        return self.store_page(make_page(sorted(parts, key=lambda part: part.first))) if parts else NO_PAGE

    def _cut(self, left_bytes: int, new: NewContent) -> tuple[list[Part], dict[bytes, Buffer]]:
        chunker, parts, contents = self._repository.chunker, list[Part](), dict[bytes, Buffer]()
        for first, content in new.runs:
            end = first + len(content)
            if first % self.unit_bytes or (end % self.unit_bytes and end != left_bytes):
                raise InternalError(f"new content from {first} to {end} of region {new.region} is no whole unit")
            view = memoryview(content)
            for block, blocks in chunker.cut(view, self._keys.cut):
                chunk = view[block * PAGE_BYTES : (block + blocks) * PAGE_BYTES]
                identity = chunk_id(chunk, self._keys.chunk_id)
                at = first + block * PAGE_BYTES
                parts.append(Part(at, at + len(chunk), identity))
                contents[identity] = chunk
        return parts, contents

    def _store_chunks(self, contents: dict[bytes, Buffer]) -> None:
        key = self._keys.chunk_id
        new = self._claim(contents)
        frames = [(identity, pack_chunk(contents[identity], identity, key)) for identity in new]
        full = []
        with self._lock:
            for identity, frame in frames:
                self._content.add(identity, frame)
                if self._content.full:
                    full.append(self._content)
                    self._content = PackBuilder(self._keys)
            self.written.new_chunks += len(new)
            self.written.new_bytes += sum(memoryview(contents[identity]).nbytes for identity in new)
        for pack in full:
            self._put(pack)

    def store_page(self, page: bytes) -> bytes:
        """Store what makes up a region; its id. Packs of pages hold nothing else: they can be fetched together."""
        identity = chunk_id(page, self._keys.chunk_id)
        if self._claim([identity]):
            frame, full = pack_chunk(page, identity, self._keys.chunk_id), None
            with self._lock:
                self._new_pages[identity] = page
                self._pages.add(identity, frame)
                if self._pages.full:
                    full, self._pages = self._pages, PackBuilder(self._keys)
            if full is not None:
                self._put(full, tell=True)
        return identity

    def _page(self, identity: bytes) -> list[Part]:
        with self._lock:
            page = self._new_pages.get(identity)
        return self._repository.page(identity) if page is None else read_page(page)

    def _claim(self, identities: Iterable[bytes]) -> list[bytes]:
        """Those that are to be stored, by this caller."""
        wanted, mine = list(identities), []
        with self._lock:
            for identity, places in zip(wanted, self._repository.index.find(wanted), strict=True):
                if places and places[0].pack not in self._repository.index.doomed:
                    self._used.add(places[0].pack)
                elif identity not in self._claimed:
                    self._claimed.add(identity)
                    mine.append(identity)
        return mine

    def _put(self, pack: PackBuilder, *, tell: bool = False) -> None:
        """``tell`` the index at once: pages are kept in memory until they can be read back."""
        name, content = pack.finish()
        try:
            self._repository.store.put(path(name), content)
        except ObjectExistsError:
            raise InternalError(f"two packs have one name: {name}") from None  # the salt is random
        packs = {}
        with self._lock:
            self._used.add(name)
            self._packs[name] = bytes(pack.entries)
            self.written.stored_bytes += len(content)
            if tell or sum(map(len, self._packs.values())) >= SEGMENT_ENTRIES * ENTRY.size:
                packs, self._packs = self._packs, {}
        self._tell_index(packs)

    def _tell_index(self, packs: dict[str, bytes]) -> None:
        """What it knows need not be kept here."""
        self._repository.index.add(packs)
        with self._lock:
            for entries in packs.values():
                for identity, _, _ in ENTRY.iter_unpack(entries):
                    self._claimed.discard(identity)
                    self._new_pages.pop(identity, None)

"""Checking: is everything there that manifests refer to, and is it what was stored?"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from novacron.repository.errors import ChunkUnknownError, DamagedError, PackMissingError, RepositoryMissingError
from novacron.repository.manifest import Manifest
from novacron.repository.packs import PackReader
from novacron.repository.prune import DAMAGED
from novacron.repository.repository import Repository

AT_A_TIME: Final = min(4, os.cpu_count() or 1)  # packs that are read, each of them whole in memory, or pages
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was stored; ``manifests`` cannot be read whole because of it."""

    code: str
    cause: str
    manifests: tuple[str, ...] = ()


@dataclass(slots=True)
class Checked:
    """What was looked at, and what is wrong."""

    manifests: int = 0
    pages: int = 0  # each once
    chunks: int = 0  # of those pages
    packs: int = 0
    read_bytes: int = 0
    total_bytes: int = 0  # that are to be read
    loose_packs: int = 0  # not in the index: a writer is at work or was broken off, or the index lost them
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class _Lost:
    """What of a manifest, or of one page, cannot be had."""

    chunks: int = 0  # that were looked for
    packs: Counter[str] = field(default_factory=Counter)  # chunks in each one
    unknown: int = 0
    pages: Counter[tuple[str, str]] = field(default_factory=Counter)  # by code and cause

    def __bool__(self) -> bool:
        return bool(self.packs or self.unknown or self.pages)

    def add(self, other: "_Lost") -> None:
        self.packs += other.packs
        self.unknown += other.unknown
        self.pages += other.pages


def check(repository: Repository, *, read: bool, progress: Callable[[Checked], None] = lambda _: None) -> Checked:
    """Every manifest, and every pack that it needs; with ``read`` the content of every chunk of every pack, too.

    A damaged pack gets a tombstone: what it holds is stored again by the next writer that meets it, which heals the
    manifests that need it. What ``progress`` raises ends it. Raises IndexDamagedError.
    """
    repository.refresh()
    done = Checked()
    try:
        repository.check_envelopes()
    except (DamagedError, RepositoryMissingError) as wrong:
        done.faults.append(Fault(wrong.code, wrong.cause))
    stored = repository.packs()
    done.packs = len(stored)
    done.loose_packs = len(stored.keys() - repository.index.packs())
    bad: set[str] = repository.index.packs() - stored.keys()
    if read:
        done.total_bytes = sum(size for size, _ in stored.values())
        for name, error in _in_threads(lambda pack: _damage(repository, pack), sorted(stored)):
            if error is not None:
                bad.add(name)
                repository.mark(name, DAMAGED)
                done.faults.append(Fault(error.code, error.cause))
            done.read_bytes += stored[name][0]
            progress(done)
    looked_at: dict[bytes, _Lost | None] = {}
    for name in repository.manifests():
        try:
            manifest = repository.manifest(name)
        except DamagedError as error:
            done.faults.append(Fault(error.code, error.cause, (name,)))
            continue
        done.manifests += 1
        lost = _Lost()
        new = dict.fromkeys(page for page in _pages(manifest) if page not in looked_at)
        for page, found in _in_threads(lambda page: _look(repository, page, bad), new):
            looked_at[page] = found or None
            done.pages += 1
            done.chunks += found.chunks
            progress(done)
        for page in _pages(manifest):
            if (found_before := looked_at[page]) is not None:
                lost.add(found_before)
        done.faults += [Fault(code, cause, (name,)) for code, cause in _told(lost)]
    return done


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Items in their order, and what came of each; a few ahead of whoever takes them."""
    working: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        for item in items:
            working.append((item, threads.submit(work, item)))
            if len(working) > AT_A_TIME:
                yield working[0][0], working.popleft()[1].result()
        while working:
            yield working[0][0], working.popleft()[1].result()


def _damage(repository: Repository, pack: str) -> DamagedError | None:
    try:
        PackReader(repository.store, repository.keys, pack).check()
    except DamagedError as error:
        return error
    return None


def _pages(manifest: Manifest) -> Iterator[bytes]:
    return (page for stream in manifest.streams for _, page in stream.filled())


def _look(repository: Repository, page: bytes, bad: set[str]) -> _Lost:
    """One page, and the places of its chunks."""
    lost = _Lost()
    try:
        identities = [part.identity for part in repository.page(page)]
    except (DamagedError, ChunkUnknownError) as error:
        lost.pages[error.code, error.cause] += 1
        return lost
    lost.chunks = len(identities)
    for places in repository.index.find(identities):
        packs = {place.pack for place in places}
        if not packs:
            lost.unknown += 1
        elif packs <= bad:
            lost.packs[min(packs)] += 1
    return lost


def _told(lost: _Lost) -> Iterator[tuple[str, str]]:
    """Codes and causes: one for each pack, and one for all chunks that no place is known of."""
    yield from lost.pages
    for pack, count in sorted(lost.packs.items()):
        error = PackMissingError(f"{count} chunks lie in pack {pack[:16]}, which is missing or damaged")
        yield error.code, error.cause
    if lost.unknown:
        yield ChunkUnknownError.code, f"the index knows no place of {lost.unknown} chunks"

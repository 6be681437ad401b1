"""Work on repositories: made, checked, pruned by this node, each work as long as it takes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Final

import structlog

from novacron.agent.errors import RepositoryWorkEndedError
from novacron.agent.open_repositories import OpenRepositories, secret_of, store_of
from novacron.core.clock import Clock
from novacron.core.errors import InternalError, NovaCronError
from novacron.protocol.backup import RepositoryPlace
from novacron.protocol.checkpoint import DONE, FAILED, WORKING, WorkProgress
from novacron.protocol.node import Nothing
from novacron.protocol.repository import (
    CheckFault,
    CheckResult,
    Made,
    PruneResult,
    RepositoryCheck,
    RepositoryCreate,
    RepositoryPrune,
    RepositoryReport,
    RepositoryStats,
    RepositoryUnmake,
    RepositoryWorkRef,
)
from novacron.repository import manifest, packs
from novacron.repository.check import Checked, check
from novacron.repository.chunkers import CHUNKERS
from novacron.repository.errors import ChunkUnknownError, RepositoryError, RepositoryExistsError, WrongKeyError
from novacron.repository.index import FOLDER as INDEX
from novacron.repository.keys import Secret
from novacron.repository.prune import Pruned, prune
from novacron.repository.repository import TOMBSTONES, Repository
from novacron.wire.identity import SpiffeId

MOST_FAULTS: Final = 50  # that are told one by one
MOST_MANIFESTS: Final = 20  # of one fault
WAITING: Final = "waiting"
log = structlog.get_logger()


@dataclass(slots=True)
class _Work:
    """Its thread sets ``progress``; ``ended`` asks it for the end."""

    clock: Clock
    began: float
    progress: WorkProgress = field(default_factory=lambda: WorkProgress(WAITING))
    ended: Event = field(default_factory=Event)
    task: asyncio.Task[None] | None = None
    result: dict[str, Any] | None = None  # the field of a report, and what it holds
    error: NovaCronError | None = None

    def at(self, phase: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        """How far it is; raises RepositoryWorkEndedError when nobody wants it any more."""
        if self.ended.is_set():
            raise RepositoryWorkEndedError("it was given up; what was done of it stays done")
        if phase != self.progress.phase:
            self.began = self.clock.monotonic()
        rate = done_bytes / max(self.clock.monotonic() - self.began, 0.001)
        left = max(0, total_bytes - done_bytes)
        self.progress = WorkProgress(phase, done_bytes, total_bytes, rate, left / rate if rate else 0.0)


class Repositories:
    """What a controller may ask. Every order begins its work, or tells how far it is."""

    def __init__(self, opened: OpenRepositories, clock: Clock) -> None:
        self._opened = opened
        self._clock = clock
        self._works: dict[str, _Work] = {}

    async def close(self) -> None:
        """End what is under way; a controller that asks again begins it anew."""
        for work in self._works.values():
            await _end(work)

    async def create(self, _peer: SpiffeId, order: RepositoryCreate) -> RepositoryReport:
        """Make a repository."""
        return self._report(order.work_id, lambda work: self._create(order, work))

    async def check(self, _peer: SpiffeId, order: RepositoryCheck) -> RepositoryReport:
        """Check one."""
        return self._report(order.work_id, lambda work: self._check(order, work))

    async def prune(self, _peer: SpiffeId, order: RepositoryPrune) -> RepositoryReport:
        """Prune one."""
        return self._report(order.work_id, lambda work: self._prune(order, work))

    async def end(self, _peer: SpiffeId, ref: RepositoryWorkRef) -> Nothing:
        """Give work up, or forget how it ended; harmless when it is not known."""
        work = self._works.pop(ref.work_id, None)
        if work is not None:
            await _end(work)
        return Nothing()

    async def unmake(self, peer: SpiffeId, order: RepositoryUnmake) -> Nothing:
        """Take back what was made, as far as the store lets it; harmless when it is another's."""
        await self.end(peer, RepositoryWorkRef(order.work_id))
        try:
            async with self._opened.changing(order.place) as repository:
                if repository.keys.repository_id == order.repository_id:
                    await asyncio.to_thread(repository.unmake)
        except RepositoryError as error:
            log.info("repository_not_unmade", address=order.place.address, cause=error.cause)
        self._opened.forget(order.place.address)
        return Nothing()

    async def stats(self, _peer: SpiffeId, place: RepositoryPlace) -> RepositoryStats:
        """What it takes; raises what opening it raises."""
        return await asyncio.to_thread(_stats, await self._opened.repository(place))

    def _report(self, work_id: str, do: Callable[[_Work], Awaitable[dict[str, Any]]]) -> RepositoryReport:
        work = self._works.get(work_id)
        if work is None:
            work = self._works[work_id] = _Work(self._clock, self._clock.monotonic())
            work.task = asyncio.create_task(_run(work, work_id, do))
        if (error := work.error) is not None:
            return RepositoryReport(
                work_id, FAILED, error_code=error.code, error_cause=error.cause, error_next=error.next_command
            )
        if work.result is None:
            return RepositoryReport(work_id, WORKING, work.progress)
        return RepositoryReport(work_id, DONE, **work.result)

    async def _create(self, order: RepositoryCreate, work: _Work) -> dict[str, Any]:
        work.at("making")
        self._opened.forget(order.place.address)
        if not order.existing:
            await asyncio.to_thread(_make, order, self._opened)
        repository = await self._opened.repository(order.place)
        return {"made": await asyncio.to_thread(_made, repository)}

    async def _check(self, order: RepositoryCheck, work: _Work) -> dict[str, Any]:
        def look(done: Checked) -> None:
            reading = done.read_bytes < done.total_bytes
            work.at("reading" if reading else "looking", done.read_bytes, done.total_bytes)

        async with self._opened.changing(order.place) as repository:
            work.at("looking")
            found = await asyncio.to_thread(check, repository, read=order.read, progress=look)
        faults = [
            CheckFault(fault.code, fault.cause, fault.manifests[:MOST_MANIFESTS])
            for fault in found.faults[:MOST_FAULTS]
        ]
        told = CheckResult(
            read=order.read,
            manifests=found.manifests,
            pages=found.pages,
            chunks=found.chunks,
            packs=found.packs,
            loose_packs=found.loose_packs,
            read_bytes=found.read_bytes,
            fault_count=len(found.faults),
            faults=tuple(faults),
        )
        return {"checked": told}

    async def _prune(self, order: RepositoryPrune, work: _Work) -> dict[str, Any]:
        def look(done: Pruned) -> None:
            work.at(done.phase, done.moved_bytes, done.total_bytes)

        def run(repository: Repository) -> Pruned:
            return prune(repository, grace_s=order.grace_s, now=self._clock.now(), progress=look)

        async with self._opened.changing(order.place) as repository:
            try:
                done = await asyncio.to_thread(run, repository)
            except ChunkUnknownError:
                await asyncio.to_thread(repository.rebuild_index)
                done = await asyncio.to_thread(run, repository)
        told = PruneResult(done.marked, done.removed, done.removed_bytes, done.moved_bytes)
        return {"pruned": told}


async def _run(work: _Work, work_id: str, do: Callable[[_Work], Awaitable[dict[str, Any]]]) -> None:
    """All of it, its end kept for whoever asks."""
    try:
        work.result = await do(work)
    except NovaCronError as error:
        work.error = error
    except Exception as error:
        log.exception("repository_fault", work=work_id)
        work.error = InternalError(f"a fault of NovaCron itself: {type(error).__name__}: {error}")


async def _end(work: _Work) -> None:
    """Its thread is waited for: nothing of it goes on afterwards. While it only waits for others, it just goes."""
    work.ended.set()
    if work.task is not None:
        if work.progress.phase == WAITING:
            work.task.cancel()
        await asyncio.wait([work.task])


def _make(order: RepositoryCreate, opened: OpenRepositories) -> None:
    """A repository of that id, now or before; raises RepositoryExistsError for one of another id."""
    store, secret, cache = store_of(order.place), secret_of(order.place), opened.cache_of(order.place)
    made: Repository | None = None
    try:
        made = Repository.create(store, secret, cache, CHUNKERS[order.chunker], order.repository_id)
    except RepositoryExistsError:
        with contextlib.suppress(WrongKeyError):
            made = Repository.open(store, secret, cache)
        if made is None or made.keys.repository_id != order.repository_id:
            raise RepositoryExistsError(
                "there is a repository in that place already",
                next_command="novacron repo create NAME ADDRESS --existing",
            ) from None
    if order.recovery:
        made.add_recovery(Secret.recovery(order.recovery))


def _made(repository: Repository) -> Made:
    return Made(repository.keys.repository_id, repository.chunker.name, repository.traits, repository.has_recovery)


def _stats(repository: Repository) -> RepositoryStats:
    manifests, index = (list(repository.store.list(folder)) for folder in (manifest.FOLDER, INDEX))
    stored = list(repository.store.list(packs.FOLDER))
    moments = [one.modified_at for one in manifests]
    return RepositoryStats(
        manifests=len(manifests),
        packs=len(stored),
        pack_bytes=sum(one.size_bytes for one in stored),
        index_bytes=sum(one.size_bytes for one in index),
        manifest_bytes=sum(one.size_bytes for one in manifests),
        going_packs=len(list(repository.store.list(TOMBSTONES))),
        oldest_at=min(moments, default=0.0),
        newest_at=max(moments, default=0.0),
    )

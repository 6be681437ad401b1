"""Backups of this node's VMs: their disks at one instant, brought into a repository that is given by its address."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from novacron.agent.backup_base import Base, all_of_it, bitmaps_of, find_base
from novacron.agent.errors import BackupBrokenOffError, BackupUnknownError
from novacron.agent.frozen import Freeze, frozen
from novacron.agent.journal import Journal
from novacron.agent.open_repositories import OpenRepositories
from novacron.agent.vms import Vms
from novacron.agent.work import Work
from novacron.agent.work_files import WorkFiles
from novacron.core.clock import Clock
from novacron.core.ids import BackupId, VmId
from novacron.hypervisor.driver import DiskExport, Driver, Machine, MachineState
from novacron.hypervisor.errors import HypervisorError, QemuDiedError, VmStateError
from novacron.hypervisor.point_in_time import PointInTime
from novacron.migration.disk_backup import DiskBackup
from novacron.migration.pipeline import through
from novacron.protocol.backup import AGENT, CRASH, OFF, BackupFacts, BackupOrder, BackupRef, BackupRemoval, BackupReport
from novacron.protocol.checkpoint import DONE, FAILED, WORKING, WorkProgress
from novacron.protocol.node import Nothing
from novacron.repository.errors import ManifestUnknownError, RepositoryError
from novacron.repository.manifest import Manifest
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer
from novacron.wire.identity import SpiffeId

_UNFIT: Final = frozenset({MachineState.INMIGRATE, MachineState.FINISH_MIGRATE, MachineState.POSTMIGRATE})
log = structlog.get_logger()


class BackupNote(Struct, frozen=True):
    """Of a backup whose disks are held: the guest goes on, and may write, whatever becomes of this process."""

    vm_id: VmId
    running: bool
    freeze: bool


@dataclass(slots=True)
class _Work(Work):
    phase: str = "waiting"
    disks: DiskBackup | None = None
    facts: BackupFacts | None = None


class Backups:
    """What a controller may ask. A bitmap is removed only when a later backup has been committed."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        vms: Vms,
        clock: Clock,
        repositories: OpenRepositories,
        notes: WorkFiles[BackupNote],
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._clock = clock
        self._repositories = repositories
        self._notes = notes
        self._works: dict[BackupId, _Work] = {}

    async def recover(self) -> None:
        """After a start: disks that were held are let go of. Bitmaps stay: the next backup knows which count."""
        for work_id, note in self._notes.left():
            machine = await self._vms.machine(note.vm_id)
            if machine is not None and note.freeze and await machine.guest_ping():
                await machine.thaw()
            await self._let_go(self._driver.point_in_time(note.vm_id, machine))
            if machine is not None and note.running and await machine.state() is MachineState.PAUSED:
                await machine.resume()
            self._notes.end(work_id)
            log.warning("backup_broken_off", backup=work_id, vm=note.vm_id)

    async def close(self) -> None:
        """End what is under way: the guests go on."""
        for work in self._works.values():
            await work.end()

    async def create(self, peer: SpiffeId, order: BackupOrder) -> BackupReport:
        """Begin; harmless when it has begun, or is in the repository. Raises VmNotHereError."""
        if order.backup_id not in self._works:
            self._journal.owned(order.vm_id)
            work = self._works[order.backup_id] = _Work(self._clock.monotonic())
            work.begin(self._run(order, work), BackupBrokenOffError("the backup was given up"))
        return await self.report(peer, BackupRef(order.backup_id))

    async def report(self, _peer: SpiffeId, ref: BackupRef) -> BackupReport:
        """This node's word on it; raises BackupUnknownError."""
        work = self._works.get(ref.backup_id)
        if work is None:
            raise BackupUnknownError(f"this node knows no backup {ref.backup_id}")
        if work.error is not None:
            error = work.error
            return BackupReport(
                ref.backup_id,
                FAILED,
                error_code=error.code,
                error_cause=error.cause,
                error_next=error.next_command,
            )
        return BackupReport(ref.backup_id, DONE if work.facts else WORKING, self._progress(work), work.facts)

    async def cancel(self, _peer: SpiffeId, ref: BackupRef) -> Nothing:
        """Give it up, unless it is done; harmless when nothing is known of it."""
        work = self._works.get(ref.backup_id)
        if work is not None:
            await work.end()
        return Nothing()

    async def delete(self, _peer: SpiffeId, removal: BackupRemoval) -> Nothing:
        """Remove its manifest; what it alone needs goes with the next prune. Harmless when it is not there."""
        repository = await self._repositories.repository(removal.repository)
        await asyncio.to_thread(repository.delete_manifest, removal.backup_id)
        self._works.pop(removal.backup_id, None)
        return Nothing()

    async def _run(self, order: BackupOrder, work: _Work) -> None:
        async with self._repositories.changing(order.repository) as repository:
            work.facts = await self._kept(repository, order) or await self._make(repository, order, work)

    async def _kept(self, repository: Repository, order: BackupOrder) -> BackupFacts | None:
        try:
            return facts_of(await asyncio.to_thread(repository.manifest, order.backup_id))
        except ManifestUnknownError:
            return None

    async def _make(self, repository: Repository, order: BackupOrder, work: _Work) -> BackupFacts:
        """The VM is held as long as its disks are."""
        async with self._vms.held(order.vm_id, "it is being backed up"):
            epoch = self._journal.owned(order.vm_id).epoch
            machine = await self._vms.machine(order.vm_id)
            state = MachineState.GONE if machine is None else await machine.state()
            if state in _UNFIT:
                raise VmStateError(f"the disks of VM {order.vm_id} are not QEMU's: it is {state}")
            running = state is MachineState.RUNNING
            point = self._driver.point_in_time(order.vm_id, machine)
            onward = bitmaps_of(repository) + order.backup_id
            self._notes.begin(order.backup_id, BackupNote(order.vm_id, running, order.freeze and running))
            try:
                await point.end()  # of one that was broken off
                await point.forget(onward)
                facts = await self._store(repository, order, work, _Source(point, machine, running, onward, epoch))
            except BaseException:
                await asyncio.shield(self._give_up(repository, order.backup_id, point, onward))
                raise
            finally:
                self._notes.end(order.backup_id)
            await asyncio.shield(self._settle(point, bitmaps_of(repository), onward))
            return facts

    async def _store(self, repository: Repository, order: BackupOrder, work: _Work, source: "_Source") -> BackupFacts:
        spec = source.machine.spec if source.machine is not None else self._driver.spec(order.vm_id)
        work.phase = "instant"
        if order.full:
            base = all_of_it(spec, "it was asked for")
        else:
            base = await find_base(repository, source.point, spec)
        created_at = self._clock.now()
        exports, freeze = await self._instant(order, source, base)
        work.phase = "disks"
        writer = Writer(repository)
        work.disks = DiskBackup(writer, self._clock, order.rate_bytes_s)
        streams = await work.disks.store(exports, base.streams)
        work.phase = "storing"
        await asyncio.to_thread(writer.flush)
        facts = BackupFacts(
            vm_id=order.vm_id,
            spec=spec,
            owner_epoch=source.epoch,
            created_at=created_at,
            consistency=AGENT if freeze.held else OFF if source.machine is None else CRASH,
            base=base.backup,
            full_because=base.full_because,
            bitmap=source.onward,
            read_bytes=writer.written.read_bytes,
            new_bytes=writer.written.new_bytes,
            stored_bytes=writer.written.stored_bytes,
            frozen_ms=freeze.frozen_ms,
            note=freeze.note,
        )
        manifest = Manifest(created_at, repository.chunker.name, streams, msgspec.to_builtins(facts))
        await through(asyncio.create_task(asyncio.to_thread(writer.commit, order.backup_id, manifest)))
        return facts

    async def _instant(self, order: BackupOrder, source: "_Source", base: Base) -> tuple[Sequence[DiskExport], Freeze]:
        if source.machine is None or not (source.running and order.freeze):
            return await source.point.begin(since=base.bitmap, onward=source.onward), Freeze()
        async with frozen(source.machine, self._clock) as freeze:
            exports = await source.point.begin(since=base.bitmap, onward=source.onward)
        return exports, freeze

    async def _give_up(self, repository: Repository, backup_id: BackupId, point: PointInTime, onward: str) -> None:
        """As if it had not been begun: the older bitmap has all that the new one has, and more."""
        try:
            await asyncio.to_thread(repository.delete_manifest, backup_id)
        except RepositoryError as error:
            log.warning("backup_not_taken_back", backup=backup_id, cause=error.cause)
        await self._let_go(point)
        try:
            await point.forget(onward)
        except HypervisorError as error:
            log.warning("marks_not_removed", bitmap=onward, cause=error.cause)

    async def _settle(self, point: PointInTime, prefix: str, onward: str) -> None:
        """It is in the repository: what marked before is of no use any more."""
        await self._let_go(point)
        try:
            for bitmap in await point.marks(prefix):
                if bitmap != onward:
                    await point.forget(bitmap)
        except HypervisorError as error:  # the next backup removes them
            log.warning("marks_not_removed", bitmap=onward, cause=error.cause)

    async def _let_go(self, point: PointInTime) -> None:
        try:
            await point.end()
        except QemuDiedError:
            return  # what it held has gone with it

    def _progress(self, work: _Work) -> WorkProgress:
        if work.disks is None:
            return WorkProgress(work.phase)
        done, total = work.disks.writer.written.read_bytes, work.disks.total_bytes
        rate = work.rate(done, self._clock.monotonic())
        return WorkProgress(work.phase, done, max(done, total), rate, max(0, total - done) / rate if rate else 0.0)


@dataclass(frozen=True, slots=True)
class _Source:
    point: PointInTime
    machine: Machine | None
    running: bool
    onward: str
    epoch: int


def facts_of(manifest: Manifest) -> BackupFacts:
    """What a backup says of itself."""
    return msgspec.convert(manifest.facts, BackupFacts)

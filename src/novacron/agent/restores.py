"""VMs brought back from checkpoints: into new files, which take the place of the old ones last."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from novacron.agent.checkpoint_store import CheckpointStore
from novacron.agent.checkpoints import facts_of
from novacron.agent.errors import CheckpointBrokenOffError, CheckpointUnknownError
from novacron.agent.journal import Journal
from novacron.agent.vms import Vms
from novacron.agent.work import Work
from novacron.agent.work_files import WorkFiles
from novacron.core.clock import Clock
from novacron.core.ids import RestoreId, VmId
from novacron.hypervisor.driver import Driver, Machine, MachineState
from novacron.hypervisor.errors import VmStateError
from novacron.migration.announce import announce
from novacron.migration.pipeline import through
from novacron.migration.revival import Revival
from novacron.protocol.checkpoint import (
    DONE,
    FAILED,
    WORKING,
    CheckpointFacts,
    RestoreOrder,
    RestoreRef,
    RestoreReport,
    WorkProgress,
)
from novacron.protocol.node import Nothing
from novacron.repository.errors import ManifestUnknownError
from novacron.repository.manifest import Manifest
from novacron.repository.repository import Repository
from novacron.wire.identity import SpiffeId

log = structlog.get_logger()


class _Note(Struct, frozen=True):
    """Of a restore whose instance takes the VM's place now."""

    vm_id: VmId
    instance: str
    running: bool


@dataclass(slots=True)
class RestoreWork(Work):
    """One that is under way, or has ended."""

    phase: str = "waiting"
    done_bytes: int = 0
    total_bytes: int = 0

    def wrote(self, size_bytes: int) -> None:
        """So many bytes more are in place."""
        self.done_bytes += size_bytes


BringBack = Callable[[RestoreWork], Coroutine[None, None, None]]


class Restores:
    """What a controller may ask. Until the journal names the new instance, the VM is what it was before."""

    def __init__(
        self, *, driver: Driver, journal: Journal, vms: Vms, clock: Clock, store: CheckpointStore, folder: Path
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._clock = clock
        self._store = store
        self._notes = WorkFiles(folder, _Note)
        self._works: dict[RestoreId, RestoreWork] = {}

    async def recover(self) -> None:
        """After a start: what the journal says has come back takes its place; the rest was cleared away."""
        for work_id, note in self._notes.left():
            work = self._works[RestoreId(work_id)] = RestoreWork(self._clock.monotonic())
            if self._journal.facts(note.vm_id).instance == note.instance:
                await self._finish(note)
                work.done = True
            else:
                work.error = CheckpointBrokenOffError("the node was stopped during the restore: the VM is as it was")
            self._notes.end(work_id)

    async def close(self) -> None:
        """End what is under way."""
        await asyncio.gather(*(work.end() for work in self._works.values()))

    async def restore(self, peer: SpiffeId, order: RestoreOrder) -> RestoreReport:
        """Begin; harmless when it has begun. Raises VmNotHereError."""

        async def bring_back(work: RestoreWork) -> None:
            async with self._store.changing() as repository:
                await self._bring_back(repository, order, work)

        return await self.carry_out(peer, order.restore_id, order.vm_id, bring_back)

    async def carry_out(
        self,
        peer: SpiffeId,
        restore_id: RestoreId,
        vm_id: VmId,
        bring_back: BringBack,
    ) -> RestoreReport:
        """Begin any restore of a VM; harmless when it has begun. Raises VmNotHereError."""
        if restore_id not in self._works:
            self._journal.owned(vm_id)
            work = self._works[restore_id] = RestoreWork(self._clock.monotonic())
            given_up = CheckpointBrokenOffError("the restore was given up; the VM is as it was")
            work.begin(bring_back(work), given_up)
        return await self.report(peer, RestoreRef(restore_id))

    async def report(self, _peer: SpiffeId, ref: RestoreRef) -> RestoreReport:
        """This node's word on it; raises CheckpointUnknownError."""
        work = self._works.get(ref.restore_id)
        if work is None:
            raise CheckpointUnknownError(
                f"this node knows no restore {ref.restore_id}", next_command="novacron vm list"
            )
        if work.error is not None:
            error = work.error
            return RestoreReport(
                ref.restore_id,
                FAILED,
                error_code=error.code,
                error_cause=error.cause,
                error_next=error.next_command,
            )
        rate = work.rate(work.done_bytes, self._clock.monotonic())
        eta_s = (work.total_bytes - work.done_bytes) / rate if rate else 0.0
        progress = WorkProgress(work.phase, work.done_bytes, work.total_bytes, rate, eta_s)
        return RestoreReport(ref.restore_id, DONE if work.done else WORKING, progress)

    async def cancel(self, _peer: SpiffeId, ref: RestoreRef) -> Nothing:
        """Give it up, unless it is done: the VM is as it was then. Harmless when nothing is known of it."""
        work = self._works.get(ref.restore_id)
        if work is not None:
            await work.end()
        return Nothing()

    async def _bring_back(self, repository: Repository, order: RestoreOrder, work: RestoreWork) -> None:
        manifest, facts = await self._checkpoint(repository, order)
        work.total_bytes = facts.read_bytes
        async with self._vms.held(order.vm_id, "it is being restored from a checkpoint"):
            self._journal.owned(order.vm_id)
            before = await self._vms.machine(order.vm_id)
            if before is not None and not order.force:
                name = before.spec.name
                raise VmStateError(
                    f"VM {name} is not stopped: what it has done since the checkpoint would be lost",
                    next_command=f"novacron vm stop {name}, or restore with --force",
                )
            revival = Revival(repository, manifest, self._clock, work.wrote)
            machine = await self._revive(revival, order, facts, work)
            note = _Note(order.vm_id, machine.instance, facts.running and not order.paused)
            await through(asyncio.create_task(self._take_its_place(order.restore_id, note)))
        await self._vms.publish(order.vm_id)

    async def _checkpoint(self, repository: Repository, order: RestoreOrder) -> tuple[Manifest, CheckpointFacts]:
        try:
            manifest = await asyncio.to_thread(repository.manifest, order.checkpoint_id)
        except ManifestUnknownError:
            raise CheckpointUnknownError(
                f"this node has no checkpoint {order.checkpoint_id}", next_command="novacron vm checkpoint list"
            ) from None
        facts = facts_of(manifest)
        if facts.vm_id != order.vm_id and not order.copies:
            raise CheckpointUnknownError(f"checkpoint {order.checkpoint_id} is not one of VM {order.vm_id}")
        return manifest, facts

    async def _revive(
        self, revival: Revival, order: RestoreOrder, facts: CheckpointFacts, work: RestoreWork
    ) -> Machine:
        """A new instance beside whatever there is, its guest ready to run; when it breaks, nothing of it is left."""
        own = self._driver.spec(order.vm_id)
        spec = own if order.copies else msgspec.structs.replace(facts.spec, name=own.name)
        ram = self._driver.ram_file(order.vm_id, order.restore_id)
        machine: Machine | None = None
        try:
            work.phase = "memory"
            await self._driver.reserve_ram(ram, spec.memory_bytes)
            await revival.memory(ram)
            work.phase = "disks"
            machine = await self._driver.prepare_incoming(order.vm_id, spec, ram_path=ram, overlay=False)
            await revival.disks(machine)
            work.phase = "loading"
            await revival.load(machine, self._driver.socket_dir(machine) / "in")
        except BaseException:
            if machine is not None:
                await asyncio.shield(self._driver.end_incoming(order.vm_id, machine.instance, keep_disks=False))
            ram.unlink(missing_ok=True)
            raise
        return machine

    async def _take_its_place(self, restore_id: RestoreId, note: _Note) -> None:
        """The point of no return is the journal's word."""
        self._notes.begin(restore_id, note)
        power = "running" if note.running else "paused"
        await self._journal.note(
            note.vm_id, instance=note.instance, power=power, arrival_state="", arrival_image="", cache_state=""
        )
        await self._finish(note)
        self._works[restore_id].done = True
        self._notes.end(restore_id)

    async def _finish(self, note: _Note) -> None:
        """Its files are the VM's, whatever ran before ends, and it runs. May be repeated, also by another process."""
        machine = await self._vms.machine(note.vm_id)
        for other in await self._driver.adopt(note.vm_id):
            if other.instance != note.instance:
                await other.kill()
        if machine is None:  # its QEMU died before it was settled: the VM is off, with the disks of the checkpoint
            await self._driver.end_incoming(note.vm_id, note.instance, keep_disks=True)
            await self._journal.note(note.vm_id, instance="", power="stopped")
            return
        await self._driver.settle_incoming(machine)
        await self._driver.adopt(note.vm_id)  # what has ended holds no disks any more
        await remove_unused(self._driver, note.vm_id)
        if note.running:
            if await machine.state() is not MachineState.RUNNING:
                await machine.resume()
            await announce(machine)


async def remove_unused(driver: Driver, vm_id: VmId) -> None:
    """Files of disks in whose place others have come."""
    for path in await driver.unused_disks(vm_id):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

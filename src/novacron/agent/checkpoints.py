"""Checkpoints of this node's VMs: made one after the other, kept in the node's repository."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from novacron.agent.checkpoint_store import CheckpointStore, prune_now
from novacron.agent.errors import CheckpointBrokenOffError, CheckpointUnknownError
from novacron.agent.journal import Journal
from novacron.agent.vms import Vms
from novacron.agent.work import Work
from novacron.agent.work_files import WorkFiles
from novacron.core.clock import Clock
from novacron.core.ids import CheckpointId, VmId
from novacron.core.units import format_size
from novacron.hypervisor.driver import Driver, Machine, MachineState
from novacron.hypervisor.errors import QemuDiedError, VmStateError
from novacron.migration.capture import Capture
from novacron.migration.disk_capture import forget_rounds
from novacron.migration.recovery import take_back
from novacron.protocol.checkpoint import (
    DONE,
    FAILED,
    WORKING,
    CheckpointFacts,
    CheckpointOrder,
    CheckpointRef,
    CheckpointReport,
    WorkProgress,
)
from novacron.protocol.node import Nothing
from novacron.repository.errors import ManifestUnknownError, RepositoryFullError
from novacron.repository.manifest import Manifest
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer
from novacron.wire.identity import SpiffeId

WAITING: Final = "waiting"
log = structlog.get_logger()


class _Note(Struct, frozen=True):
    """Of a capture under way: the guest goes on, if it ran, whatever becomes of this process."""

    vm_id: VmId
    running: bool


@dataclass(slots=True)
class _Work(Work):
    capture: Capture | None = None
    writer: Writer | None = None
    facts: CheckpointFacts | None = None
    removed: list[CheckpointId] = field(default_factory=list)


class Checkpoints:
    """What a controller may ask. ``quota_bytes``: of what their content takes; 0: as much as there is room."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        vms: Vms,
        clock: Clock,
        store: CheckpointStore,
        folder: Path,
        quota_bytes: int = 0,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._clock = clock
        self._store = store
        self._quota_bytes = quota_bytes
        self._notes = WorkFiles(folder, _Note)
        self._works: dict[CheckpointId, _Work] = {}

    async def recover(self) -> None:
        """After a start: guests that were held for a checkpoint go on, and what was put aside for it goes."""
        for work_id, note in self._notes.left():
            machine = await self._vms.machine(note.vm_id)
            if machine is not None:
                await self._take_back(machine, running=note.running)
            self._notes.end(work_id)
            log.warning("checkpoint_broken_off", checkpoint=work_id, vm=note.vm_id)

    async def close(self) -> None:
        """End what is under way: the guests go on."""
        for work in self._works.values():
            await work.end()

    async def create(self, _peer: SpiffeId, order: CheckpointOrder) -> CheckpointReport:
        """Begin; harmless when it has begun, or is there. Raises VmNotHereError, VmStateError."""
        if order.checkpoint_id not in self._works and await self._kept(order.checkpoint_id) is None:
            await self._vms.running(order.vm_id)
            work = self._works[order.checkpoint_id] = _Work(self._clock.monotonic())
            given_up = CheckpointBrokenOffError("the checkpoint was given up; the VM runs on")
            work.begin(self._make(order, work), given_up)
        return await self.report(_peer, CheckpointRef(order.checkpoint_id))

    async def report(self, _peer: SpiffeId, ref: CheckpointRef) -> CheckpointReport:
        """This node's word on it; raises CheckpointUnknownError."""
        work = self._works.get(ref.checkpoint_id)
        if work is None:
            kept = await self._kept(ref.checkpoint_id)
            if kept is None:
                raise CheckpointUnknownError(f"this node has no checkpoint {ref.checkpoint_id}")
            return CheckpointReport(ref.checkpoint_id, DONE, facts=kept)
        if work.error is not None:
            error = work.error
            return CheckpointReport(
                ref.checkpoint_id,
                FAILED,
                error_code=error.code,
                error_cause=error.cause,
                error_next=error.next_command,
            )
        state = WORKING if work.facts is None else DONE
        return CheckpointReport(ref.checkpoint_id, state, self._progress(work), work.facts, tuple(work.removed))

    async def delete(self, _peer: SpiffeId, ref: CheckpointRef) -> Nothing:
        """Give it up, or remove it with what it alone needs; harmless when it is not there."""
        work = self._works.pop(ref.checkpoint_id, None)
        if work is not None:
            await work.end()
        await self._store.remove(ref.checkpoint_id)
        return Nothing()

    async def _make(self, order: CheckpointOrder, work: _Work) -> None:
        async with self._store.changing() as repository:
            facts = await self._capture(repository, order, work)
            work.removed = await self._make_room(repository, order, facts)
            work.facts = facts

    async def _capture(self, repository: Repository, order: CheckpointOrder, work: _Work) -> CheckpointFacts:
        """Take it while the VM is held, store it while the VM goes on."""
        writer = work.writer = Writer(repository)
        ram = self._driver.ram_file(order.vm_id, order.checkpoint_id)
        try:
            async with self._vms.held(order.vm_id, "a checkpoint of it is being made"):
                machine = await self._vms.running(order.vm_id)
                running = await _may_be_taken(machine)
                spec, epoch = machine.spec, self._journal.claim(order.vm_id).epoch
                await self._driver.reserve_ram(ram, spec.memory_bytes)
                work.capture = Capture(
                    machine,
                    writer,
                    self._clock,
                    running=running,
                    socket=self._driver.socket_dir(machine) / "checkpoint",
                    ram=ram,
                    aside=self._notes.aside(order.checkpoint_id),
                )
                self._notes.begin(order.checkpoint_id, _Note(order.vm_id, running))
                try:
                    await work.capture.take()
                except BaseException:
                    await asyncio.shield(self._take_back(machine, running=running))
                    raise
            streams = await work.capture.store()
            await asyncio.to_thread(writer.flush)
        finally:
            ram.unlink(missing_ok=True)
            self._notes.end(order.checkpoint_id)
        taken_at = work.capture.stages.stood_still_at
        facts = CheckpointFacts(
            vm_id=order.vm_id,
            spec=spec,
            owner_epoch=epoch,
            running=running,
            created_at=taken_at,
            downtime_ms=work.capture.downtime_ms,
            read_bytes=writer.written.read_bytes,
            new_bytes=writer.written.new_bytes,
            stored_bytes=writer.written.stored_bytes,
            expires_at=taken_at + order.keep_s if order.keep_s else 0.0,
        )
        manifest = Manifest(taken_at, repository.chunker.name, streams, msgspec.to_builtins(facts))
        await asyncio.to_thread(writer.commit, order.checkpoint_id, manifest)
        return facts

    async def _take_back(self, machine: Machine, *, running: bool) -> None:
        """Whatever was under way, the guest goes on and its disks are as they were."""
        try:
            await take_back(machine, self._clock, running=running)
            await forget_rounds(machine)
        except QemuDiedError:
            return  # there is nothing to take back: the next look tells that the VM has stopped

    async def _make_room(
        self, repository: Repository, order: CheckpointOrder, facts: CheckpointFacts
    ) -> list[CheckpointId]:
        """Which others go: those beyond ``keep``, those that expired; then the oldest, as the quota asks for it."""
        others = await asyncio.to_thread(_others, repository, order.checkpoint_id)
        going = list(_beyond(others, order, facts, self._clock.now()))
        stay = [order.checkpoint_id, *(one for one in others if one not in going)]
        may_go = [one for one in _spare(others, order.vm_id) if one not in going]
        while self._quota_bytes and (wanted := await asyncio.to_thread(_takes, repository, stay)) > self._quota_bytes:
            if not may_go:
                await asyncio.to_thread(repository.delete_manifest, order.checkpoint_id)
                await prune_now(repository)
                raise RepositoryFullError(
                    f"the checkpoints of this node would take {format_size(wanted)}, of the "
                    f"{format_size(self._quota_bytes)} that they may; the newest of a VM never goes for another's",
                    next_command="novacron vm checkpoint delete CHECKPOINT, or raise node.checkpoint_quota",
                )
            going.append(may_go.pop(0))
            stay.remove(going[-1])
        for checkpoint_id in going:
            await asyncio.to_thread(repository.delete_manifest, checkpoint_id)
        if going:
            await prune_now(repository)
        return going

    async def _kept(self, checkpoint_id: CheckpointId) -> CheckpointFacts | None:
        repository = await self._store.repository()
        try:
            return facts_of(await asyncio.to_thread(repository.manifest, checkpoint_id))
        except ManifestUnknownError:
            return None

    def _progress(self, work: _Work) -> WorkProgress:
        if work.capture is None or work.writer is None:
            return WorkProgress(WAITING)
        stages, done = work.capture.stages, work.writer.written.read_bytes
        rate = work.rate(done, self._clock.monotonic())
        left = max(0, stages.total_bytes - done)
        eta_s = left / rate if rate and stages.total_bytes else 0.0
        return WorkProgress(stages.phase, done, max(done, stages.total_bytes), rate, eta_s)


def facts_of(manifest: Manifest) -> CheckpointFacts:
    """What a checkpoint says of itself."""
    return msgspec.convert(manifest.facts, CheckpointFacts)


async def _may_be_taken(machine: Machine) -> bool:
    """Whether the guest runs; raises VmStateError when there is nothing to take."""
    state = await machine.state()
    if state is MachineState.POSTMIGRATE:
        raise VmStateError(
            f"VM {machine.spec.name} has stood still since its last checkpoint: it would be the same again",
            next_command=f"novacron vm resume {machine.spec.name}",
        )
    if state not in {MachineState.RUNNING, MachineState.PAUSED, MachineState.PRELAUNCH}:
        raise VmStateError(f"VM {machine.spec.name} is {state}: it has no memory that could be kept")
    return state is MachineState.RUNNING


def _others(repository: Repository, own: CheckpointId) -> dict[CheckpointId, CheckpointFacts]:
    """The oldest first."""
    names = [CheckpointId(name) for name in repository.manifests() if name != own]
    found = {name: facts_of(repository.manifest(name)) for name in names}
    return dict(sorted(found.items(), key=lambda item: item[1].created_at))


def _beyond(
    others: dict[CheckpointId, CheckpointFacts], order: CheckpointOrder, facts: CheckpointFacts, now: float
) -> Iterator[CheckpointId]:
    same = [name for name, one in others.items() if one.vm_id == facts.vm_id]
    surplus = same[: max(0, len(same) + 1 - order.keep)] if order.keep else []
    for name, one in others.items():
        if name in surplus or 0 < one.expires_at <= now:
            yield name


def _spare(others: dict[CheckpointId, CheckpointFacts], vm_id: VmId) -> Iterator[CheckpointId]:
    """The oldest first, but the newest of each other VM."""
    newest = {one.vm_id: name for name, one in others.items()}
    return (name for name, one in others.items() if one.vm_id == vm_id or newest[one.vm_id] != name)


def _takes(repository: Repository, names: Iterable[CheckpointId]) -> int:
    """Bytes that the content of these checkpoints takes, each chunk counted once."""
    passed: set[bytes] = set()
    chunks = {identity for name in names for identity in repository.needs(repository.manifest(name), passed)}
    return sum(places[0].length for places in repository.index.find(list(chunks)) if places)

"""A VM that is stopped is given the disks of a backup: new files, which take the place of the old ones last."""

import asyncio

import msgspec

from novacron.agent.backups import facts_of
from novacron.agent.errors import BackupUnknownError
from novacron.agent.journal import Journal
from novacron.agent.open_repositories import OpenRepositories
from novacron.agent.restores import Restores, RestoreWork, remove_unused
from novacron.agent.vms import Vms
from novacron.core.clock import Clock
from novacron.hypervisor.driver import Driver
from novacron.hypervisor.errors import VmStateError
from novacron.migration.pipeline import through
from novacron.migration.revival import Revival
from novacron.protocol.backup import BackupRestoreOrder
from novacron.protocol.checkpoint import RestoreReport
from novacron.repository.errors import ManifestUnknownError
from novacron.repository.manifest import Manifest
from novacron.repository.regions import REGION_BYTES
from novacron.repository.repository import Repository
from novacron.wire.identity import SpiffeId


class DiskRestores:
    """What a controller may ask; ``restores`` reports on them, and gives them up."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        vms: Vms,
        clock: Clock,
        repositories: OpenRepositories,
        restores: Restores,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._vms = vms
        self._clock = clock
        self._repositories = repositories
        self._restores = restores

    async def restore(self, peer: SpiffeId, order: BackupRestoreOrder) -> RestoreReport:
        """Begin; harmless when it has begun. Raises VmNotHereError."""

        async def bring_back(work: RestoreWork) -> None:
            async with self._repositories.changing(order.repository) as repository:
                await self._bring_back(repository, order, work)

        return await self._restores.carry_out(peer, order.restore_id, order.vm_id, bring_back)

    async def _bring_back(self, repository: Repository, order: BackupRestoreOrder, work: RestoreWork) -> None:
        manifest = await self._backup(repository, order)
        work.total_bytes = sum(REGION_BYTES for stream in manifest.streams for _ in stream.filled())
        async with self._vms.held(order.vm_id, "its disks are being restored"):
            self._journal.owned(order.vm_id)
            own = self._driver.spec(order.vm_id)
            if await self._vms.machine(order.vm_id) is not None:
                raise VmStateError(
                    f"VM {own.name} is not stopped: its disks cannot be replaced",
                    next_command=f"novacron vm stop {own.name}",
                )
            if not (order.overwrite or order.copies):
                raise VmStateError(f"what the disks of VM {own.name} hold would be lost: say that this is meant")
            spec = msgspec.structs.replace(own, disks=facts_of(manifest).spec.disks)
            ram = self._driver.ram_file(order.vm_id, order.restore_id)
            await self._driver.reserve_ram(ram, spec.memory_bytes)
            work.phase = "disks"
            machine = await self._driver.prepare_incoming(order.vm_id, spec, ram_path=ram, overlay=False)
            try:
                await Revival(repository, manifest, self._clock, work.wrote).disks(machine)
                await machine.end_exports()
            except BaseException:
                await asyncio.shield(self._end(order, machine.instance, keep_disks=False))
                raise
            await through(asyncio.create_task(self._end(order, machine.instance, keep_disks=True)))
            work.done = True
        await self._vms.publish(order.vm_id)

    async def _end(self, order: BackupRestoreOrder, instance: str, *, keep_disks: bool) -> None:
        """The instance has only written; with ``keep_disks`` what it has written is the VM's."""
        ram = await self._driver.end_incoming(order.vm_id, instance, keep_disks=keep_disks)
        if ram is not None:
            ram.unlink(missing_ok=True)
        if keep_disks:
            await self._journal.note(order.vm_id, arrival_state="", arrival_image="", cache_state="")
            await remove_unused(self._driver, order.vm_id)

    async def _backup(self, repository: Repository, order: BackupRestoreOrder) -> Manifest:
        try:
            manifest = await asyncio.to_thread(repository.manifest, order.backup_id)
        except ManifestUnknownError:
            raise BackupUnknownError(f"the repository has no backup {order.backup_id}") from None
        if facts_of(manifest).vm_id != order.vm_id and not order.copies:
            raise BackupUnknownError(f"backup {order.backup_id} is not one of VM {order.vm_id}")
        return manifest

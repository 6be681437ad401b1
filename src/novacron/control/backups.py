"""Backups of this cluster's VMs: what people may ask of them. Nodes bring them into repositories."""

from typing import Final

import msgspec

from novacron.control.errors import RepositoryBusyError
from novacron.control.kinds import BACKUPS, REPOSITORIES, VMS
from novacron.control.repositories import CREATING as REPOSITORY_CREATING
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError
from novacron.core.ids import BackupId, NodeId, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.resources import Backup, Vm
from novacron.protocol.rest import BackupRequest
from novacron.workflow import journal
from novacron.workflow.definition import Json
from novacron.workflow.runner import WorkflowRunner

CREATING, READY, DELETING = "creating", "ready", "deleting"  # states of a backup
HAS_DISKS: Final = frozenset({"running", "paused", "stopped"})


class Backups:
    """Each change is a durable job; its record says how far it is."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def run(self, vm_reference: str, request: BackupRequest) -> Backup:
        """The record, whose job makes it; raises ConflictError when the VM is migrating, RepositoryBusyError."""
        backup_id, job_id, now = BackupId(new_id("backup")), new_id("job"), self._clock.now()

        def put(tx: Transaction) -> Backup:
            vm = VMS.get(tx, vm_reference).value
            repository = REPOSITORIES.get(tx, request.repository).value
            if repository.state == REPOSITORY_CREATING:
                raise RepositoryBusyError(
                    f"repository {repository.name} is being made",
                    next_command=f"novacron repo watch {repository.name}",
                )
            node_id = _node_with_disks(vm)
            backup = Backup(
                backup_id, vm.id, vm.name, repository.id, repository.name, node_id, CREATING, job_id, begun_at=now
            )
            BACKUPS.put(tx, backup, named=False)
            body: Json = {"backup_id": backup_id, "vm_id": vm.id, "node_id": node_id, "repository_id": repository.id}
            body |= {"full": request.full, "freeze": request.freeze, "rate_bytes_s": request.rate_bytes_s}
            journal.submit(tx, job_id, "backup.run", _path(backup_id), body)
            return backup

        made = await self._database.write(put)
        self.runner.wake()
        return made

    async def cancel(self, reference: str) -> None:
        """Give it up while it is made; raises ConflictError."""

        def cancel(tx: Transaction) -> None:
            known = BACKUPS.get(tx, reference).value
            if known.state != CREATING:
                raise ConflictError(
                    f"backup {known.id} is {known.state}: there is nothing to give up",
                    next_command=f"novacron backup show {known.id}",
                )
            journal.request_cancel(tx, known.job_id)

        await self._database.write(cancel)
        self.runner.wake()

    async def delete(self, reference: str) -> Backup:
        """Remove it; what it alone needs goes with the next prune. Raises ConflictError unless it is ready."""
        job_id = new_id("job")

        def put(tx: Transaction) -> Backup:
            known = BACKUPS.get(tx, reference).value
            if known.state != READY:
                raise ConflictError(
                    f"backup {known.id} is {known.state}", next_command=f"novacron job show {known.job_id}"
                )
            node_id = REPOSITORIES.get(tx, known.repository_id).value.node_id
            begun = msgspec.structs.replace(known, state=DELETING, job_id=job_id, problem=None)
            BACKUPS.put(tx, begun, named=False)
            body: Json = {"backup_id": known.id, "node_id": node_id, "repository_id": known.repository_id}
            journal.submit(tx, job_id, "backup.delete", _path(known.id), body)
            return begun

        begun = await self._database.write(put)
        self.runner.wake()
        return begun


def _path(backup_id: BackupId) -> str:
    return f"/api/v1/backups/{backup_id}"


def _node_with_disks(vm: Vm) -> NodeId:
    """Where its disks are; raises ConflictError."""
    if vm.migration_id is not None:
        raise ConflictError(f"VM {vm.name} is migrating", next_command=f"novacron migration show {vm.migration_id}")
    if vm.state not in HAS_DISKS or vm.node_id is None:
        raise ConflictError(f"VM {vm.name} is {vm.state}", next_command=f"novacron vm show {vm.name}")
    return vm.node_id

"""Checkpoints of this cluster's VMs: what people may ask of them. The nodes have them, in repositories of their own."""

from collections.abc import Callable
from typing import Final

import msgspec

from novacron.control import specs
from novacron.control.errors import NodeDrainedError
from novacron.control.kinds import CHECKPOINTS, NODES, VMS
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError, InvalidInputError
from novacron.core.ids import CheckpointId, NodeId, RestoreId, VmId, check_name, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.resources import Checkpoint, Vm
from novacron.protocol.rest import CheckpointRequest, RestoreRequest
from novacron.workflow import journal
from novacron.workflow.definition import Json
from novacron.workflow.runner import WorkflowRunner

CREATING, READY, RESTORING, DELETING = "creating", "ready", "restoring", "deleting"  # states of a checkpoint
HELP: Final = "novacron vm checkpoint restore --help"
HAS_MEMORY = frozenset({"running", "paused"})


class Checkpoints:
    """Each change is a durable job; its record says how far it is."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def create(self, vm_reference: str, request: CheckpointRequest) -> Checkpoint:
        """The record, whose job makes it; raises ConflictError when the VM has no memory, or is migrating."""
        checkpoint_id, job_id, now = CheckpointId(new_id("checkpoint")), new_id("job"), self._clock.now()

        def put(tx: Transaction) -> Checkpoint:
            vm = VMS.get(tx, vm_reference).value
            node_id = _node_with_memory(vm)
            checkpoint = Checkpoint(checkpoint_id, vm.id, vm.name, node_id, CREATING, job_id, begun_at=now)
            CHECKPOINTS.put(tx, checkpoint, named=False)
            body: Json = {"checkpoint_id": checkpoint_id, "vm_id": vm.id, "node_id": node_id}
            body |= {"keep": request.keep, "keep_s": request.keep_for_ms / 1000}
            journal.submit(tx, job_id, "checkpoint.create", _path(checkpoint_id), body)
            return checkpoint

        made = await self._database.write(put)
        self.runner.wake()
        return made

    async def cancel(self, reference: str) -> None:
        """Give up the making or the restore that is under way; the VM is not harmed. Raises ConflictError."""

        def ask(tx: Transaction) -> None:
            checkpoint = CHECKPOINTS.get(tx, reference).value
            if checkpoint.state not in {CREATING, RESTORING}:
                raise ConflictError(
                    f"checkpoint {checkpoint.id} is {checkpoint.state}: there is nothing to give up",
                    next_command=f"novacron vm checkpoint show {checkpoint.id}",
                )
            journal.request_cancel(tx, checkpoint.job_id)

        await self._database.write(ask)

    async def delete(self, reference: str) -> Checkpoint:
        """Remove it, by a job; raises ConflictError while it is worked on."""
        return await self._begin(reference, DELETING, "checkpoint.delete", {})

    async def restore(self, reference: str, request: RestoreRequest) -> Checkpoint:
        """Bring its VM back, by a job, or make another one of it; raises ConflictError, InvalidInputError."""
        if request.name:
            return await self._copy(reference, request)

        def look(tx: Transaction) -> Json:
            checkpoint = CHECKPOINTS.get(tx, reference).value
            vm = VMS.get(tx, checkpoint.vm_id).value
            _check_restorable(tx, checkpoint, vm, force=request.force)
            return {"vm_id": vm.id, "restore_id": RestoreId(new_id("restore")), "force": request.force}

        body = await self._database.read(look)
        return await self._begin(reference, RESTORING, "checkpoint.restore", body)

    async def _copy(self, reference: str, request: RestoreRequest) -> Checkpoint:
        """A new VM; what became of the one that the checkpoint is of does not matter."""
        check_name(request.name, "VM")
        if request.force:
            raise InvalidInputError("a new VM ends no other one: leave --force out", next_command=HELP)
        vm_id, now = VmId(new_id("vm")), self._clock.now()

        def look(tx: Transaction) -> Vm:
            checkpoint = CHECKPOINTS.get(tx, reference).value
            _check_open(tx, checkpoint)
            if checkpoint.facts is None:
                raise ConflictError(
                    f"checkpoint {checkpoint.id} is {checkpoint.state}",
                    next_command=f"novacron vm checkpoint watch {checkpoint.id}",
                )
            spec = specs.copied(checkpoint.facts.spec, request.name)
            return Vm(vm_id, spec.name, spec, "creating", 1, checkpoint.node_id, created_at=now)

        vm = await self._database.read(look)
        body: Json = {"vm_id": vm.id, "restore_id": RestoreId(new_id("restore")), "force": False}
        body |= {"copies": True, "spec": msgspec.to_builtins(vm.spec)}
        return await self._begin(reference, RESTORING, "checkpoint.copy", body, lambda tx: VMS.put(tx, vm))

    async def _begin(
        self,
        reference: str,
        state: str,
        workflow: str,
        more: Json,
        also: Callable[[Transaction], object] = lambda _: None,
    ) -> Checkpoint:
        job_id = new_id("job")

        def put(tx: Transaction) -> Checkpoint:
            known = CHECKPOINTS.get(tx, reference).value
            if known.state != READY:
                raise ConflictError(
                    f"checkpoint {known.id} is {known.state}", next_command=f"novacron job show {known.job_id}"
                )
            also(tx)
            begun = msgspec.structs.replace(known, state=state, job_id=job_id, problem=None)
            CHECKPOINTS.put(tx, begun, named=False)
            body = {"checkpoint_id": known.id, "node_id": known.node_id, **more}
            journal.submit(tx, job_id, workflow, _path(known.id), body)
            return begun

        begun = await self._database.write(put)
        self.runner.wake()
        return begun


def _path(checkpoint_id: CheckpointId) -> str:
    return f"/api/v1/checkpoints/{checkpoint_id}"


def _node_with_memory(vm: Vm) -> NodeId:
    """Where its memory is; raises ConflictError."""
    if vm.migration_id is not None:
        raise ConflictError(f"VM {vm.name} is migrating", next_command=f"novacron migration show {vm.migration_id}")
    if vm.state not in HAS_MEMORY or vm.node_id is None:
        raise ConflictError(
            f"VM {vm.name} is {vm.state}: a checkpoint is of a VM that runs or is paused",
            next_command=f"novacron vm start {vm.name}",
        )
    return vm.node_id


def _check_open(tx: Transaction, checkpoint: Checkpoint) -> None:
    """A node that is drained takes no VM; raises NodeDrainedError."""
    node = NODES.get(tx, checkpoint.node_id).value
    if node.drain:
        raise NodeDrainedError(
            f"node {node.name}, at which checkpoint {checkpoint.id} lies, is {node.drain}",
            next_command=f"novacron node undrain {node.name}",
        )


def _check_restorable(tx: Transaction, checkpoint: Checkpoint, vm: Vm, *, force: bool) -> None:
    """Raises ConflictError."""
    if vm.migration_id is not None:
        raise ConflictError(f"VM {vm.name} is migrating", next_command=f"novacron migration show {vm.migration_id}")
    if vm.node_id != checkpoint.node_id:
        node = NODES.find(tx, checkpoint.node_id)
        name = node.value.name if node else checkpoint.node_id
        raise ConflictError(
            f"checkpoint {checkpoint.id} lies at node {name}, and VM {vm.name} is elsewhere",
            next_command=f"novacron migrate {vm.name} --to /{name}",
        )
    if vm.state in HAS_MEMORY and not force:
        raise ConflictError(
            f"VM {vm.name} is {vm.state}: what it has done since the checkpoint would be lost",
            next_command=f"novacron vm stop {vm.name}, or restore with --force",
        )

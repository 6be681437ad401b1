"""Making, restoring and removing a checkpoint, as durable jobs. The node works; the job asks how far it is."""

from typing import Final, Protocol

import msgspec

from novacron.control import specs
from novacron.control.checkpoints import READY
from novacron.control.kinds import CHECKPOINTS, VMS
from novacron.control.nodes import Nodes
from novacron.control.reported import raise_failure
from novacron.control.vm_workflows import GONE
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.core.ids import CheckpointId, NodeId, RestoreId, VmId
from novacron.database.database import Database, Transaction
from novacron.protocol.checkpoint import (
    DONE,
    CheckpointOrder,
    CheckpointRef,
    CheckpointReport,
    RestoreOrder,
    RestoreRef,
    RestoreReport,
    WorkProgress,
)
from novacron.protocol.node import Nothing, VmCreate, VmRef, VmReport, VmStop
from novacron.protocol.resources import Checkpoint, Image, Problem
from novacron.protocol.vm import VmSpec
from novacron.workflow.definition import Irreversible, Step, StepContext, Workflow

LOOK_EVERY_S: Final = 0.3
PATIENCE: Final = 20  # looks at a node that does not answer: some minutes


class Supplies(Protocol):
    """Who brings images to nodes."""

    async def supply(self, node_id: NodeId, images: list[Image]) -> None:
        """What is there already is not brought again."""
        ...


class CheckpointWorkflows:
    """``checkpoint.create``, ``checkpoint.delete``, ``checkpoint.restore`` and ``checkpoint.copy``."""

    def __init__(self, database: Database, nodes: Nodes, supplies: Supplies, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._supplies = supplies
        self._clock = clock

    def workflows(self) -> tuple[Workflow, ...]:
        """All four, with their steps in order."""
        looks = Irreversible("it only looks")
        create = (
            Step("reserve", self._reserve, undo=self._forget),
            Step("begin", self._begin, undo=self._remove),
            Step("follow", self._follow, undo=looks, attempts=PATIENCE),
            Step("record", self._record, undo=Irreversible("the last step has nothing after it")),
        )
        delete = (
            Step("remove", self._remove, undo=self._free, attempts=PATIENCE),
            Step("forget", self._forget, undo=Irreversible("the checkpoint is gone")),
        )
        restore = (
            Step("supply", self._supply, undo=self._free),
            Step("restore", self._restore, undo=self._cancel_restore),
            Step("watch", self._watch, undo=looks, point_of_no_return=True, attempts=PATIENCE),
            Step("settle", self._settle, undo=Irreversible("the VM is what it was at the checkpoint")),
        )
        copy = (
            Step("name", self._name, undo=self._forget_vm),
            restore[0],
            Step("make", self._make, undo=self._unmake),
            *restore[1:],
        )
        return (
            Workflow("checkpoint.create", create),
            Workflow("checkpoint.delete", delete),
            Workflow("checkpoint.restore", restore),
            Workflow("checkpoint.copy", copy),
        )

    async def _reserve(self, _: StepContext) -> None:
        """The record was put down with the job; here is its undo."""

    async def _begin(self, context: StepContext) -> None:
        given = context.input
        order = CheckpointOrder(_checkpoint(context), VmId(given["vm_id"]), given["keep"], given["keep_s"])
        await self._nodes.call(_node(context), "checkpoint.create", order, CheckpointReport)

    async def _follow(self, context: StepContext) -> None:
        """Until it is whole; raises what it failed for."""
        ref = CheckpointRef(_checkpoint(context))
        while True:
            report = await self._nodes.call(_node(context), "checkpoint.report", ref, CheckpointReport)
            if await self._ended(context, report, report.progress):
                return

    async def _record(self, context: StepContext) -> None:
        ref = CheckpointRef(_checkpoint(context))
        report = await self._nodes.call(_node(context), "checkpoint.report", ref, CheckpointReport)

        def record(tx: Transaction) -> None:
            known = CHECKPOINTS.get(tx, ref.checkpoint_id).value
            CHECKPOINTS.put(
                tx,
                msgspec.structs.replace(known, state=READY, facts=report.facts, progress=WorkProgress()),
                named=False,
            )
            for removed in report.removed:
                CHECKPOINTS.delete(tx, removed)

        await context.commit(record)

    async def _remove(self, context: StepContext) -> None:
        await self._nodes.call(_node(context), "checkpoint.delete", CheckpointRef(_checkpoint(context)), Nothing)

    async def _forget(self, context: StepContext) -> None:
        await context.commit(lambda tx: CHECKPOINTS.delete(tx, _checkpoint(context)))

    async def _supply(self, context: StepContext) -> None:
        """What the VM boots from is started with it, though nothing of it is used."""
        known = await self._database.read(lambda tx: CHECKPOINTS.get(tx, _checkpoint(context)).value)
        if known.facts is not None:
            spec = known.facts.spec
            images = await self._database.read(lambda tx: specs.images_of(tx, spec, disks=False))
            await self._supplies.supply(_node(context), images)

    async def _name(self, _: StepContext) -> None:
        """The new VM's record was put down with the job; here is its undo."""

    async def _forget_vm(self, context: StepContext) -> None:
        def forget(tx: Transaction) -> None:
            if VMS.find(tx, context.input["vm_id"]) is not None:
                VMS.delete(tx, context.input["vm_id"])
            self._put_free(tx, context)

        await context.commit(forget)

    async def _make(self, context: StepContext) -> None:
        """A VM that is off, whose disks are empty: the restore fills it."""
        order = VmCreate(VmId(context.input["vm_id"]), _spec(context), epoch=1)
        await self._nodes.call(_node(context), "vm.create", order, VmReport)

    async def _unmake(self, context: StepContext) -> None:
        vm_id = VmId(context.input["vm_id"])
        try:
            await self._nodes.call(_node(context), "vm.stop", VmStop(vm_id, force=True), VmReport)
        except RemoteError as error:
            if error.code not in GONE:
                raise
        await self._nodes.call(_node(context), "vm.delete", VmRef(vm_id), Nothing)

    async def _restore(self, context: StepContext) -> None:
        given = context.input
        copies = given.get("copies", False)
        order = RestoreOrder(
            _restore_id(context),
            _checkpoint(context),
            VmId(given["vm_id"]),
            force=given["force"],
            copies=copies,
            paused=copies and _is_on_a_bridge(_spec(context)),
        )
        await self._nodes.call(_node(context), "checkpoint.restore", order, RestoreReport)

    async def _cancel_restore(self, context: StepContext) -> None:
        await self._nodes.call(_node(context), "checkpoint.restore_cancel", RestoreRef(_restore_id(context)), Nothing)

    async def _watch(self, context: StepContext) -> None:
        """Until the VM is back; raises what it failed for."""
        ref = RestoreRef(_restore_id(context))
        while True:
            report = await self._nodes.call(_node(context), "checkpoint.restore_report", ref, RestoreReport)
            if await self._ended(context, report, report.progress):
                return

    async def _settle(self, context: StepContext) -> None:
        ref = VmRef(VmId(context.input["vm_id"]))
        report = await self._nodes.call(_node(context), "vm.report", ref, VmReport)

        def settle(tx: Transaction) -> None:
            vm = VMS.find(tx, report.vm_id)
            if vm is not None:
                now = self._nodes.newest(report, _node(context))
                VMS.put(tx, msgspec.structs.replace(vm.value, state=now.state, spec=now.spec, owner_epoch=now.epoch))
            self._put_free(tx, context)

        await context.commit(settle)

    async def _free(self, context: StepContext) -> None:
        """It may be used, or deleted, again; what the last work failed for stays with it."""
        await context.commit(lambda tx: self._put_free(tx, context))

    def _put_free(self, tx: Transaction, context: StepContext) -> None:
        found = CHECKPOINTS.find(tx, _checkpoint(context))
        if found is None:
            return
        known = found.value
        failed = context.error_code
        problem = Problem(failed, context.error_cause, context.error_next) if failed else None
        free = msgspec.structs.replace(known, state=READY, progress=WorkProgress(), problem=problem)
        CHECKPOINTS.put(tx, free, named=False)

    async def _ended(
        self, context: StepContext, report: CheckpointReport | RestoreReport, progress: WorkProgress
    ) -> bool:
        """Whether the node has done it; else note how far it is, and wait a moment."""
        if report.state == DONE:
            return True
        raise_failure(report)
        await context.check_cancel()
        await context.commit(lambda tx: _note(tx, _checkpoint(context), progress))
        await self._clock.sleep(LOOK_EVERY_S)
        return False


def _note(tx: Transaction, checkpoint_id: CheckpointId, progress: WorkProgress) -> None:
    known: Checkpoint = CHECKPOINTS.get(tx, checkpoint_id).value
    if known.progress != progress:
        CHECKPOINTS.put(tx, msgspec.structs.replace(known, progress=progress), named=False)


def _checkpoint(context: StepContext) -> CheckpointId:
    return CheckpointId(context.input["checkpoint_id"])


def _restore_id(context: StepContext) -> RestoreId:
    return RestoreId(context.input["restore_id"])


def _spec(context: StepContext) -> VmSpec:
    return msgspec.convert(context.input["spec"], VmSpec)


def _is_on_a_bridge(spec: VmSpec) -> bool:
    """The guest knows its old address still, until it boots: beside the VM that it was, it must not just go on."""
    return any(nic.mode == "tap" for nic in spec.nics)


def _node(context: StepContext) -> NodeId:
    return NodeId(context.input["node_id"])

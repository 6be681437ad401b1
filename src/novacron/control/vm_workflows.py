"""The making and the removal of a VM, as durable jobs."""

import msgspec

from novacron.control import specs
from novacron.control.kinds import VMS
from novacron.control.nodes import Nodes
from novacron.control.vms import Vms
from novacron.core.errors import RemoteError
from novacron.core.ids import NodeId, VmId
from novacron.database.database import Database, Transaction
from novacron.protocol.node import Nothing, VmCreate, VmRef, VmReport, VmStop
from novacron.protocol.vm import VmSpec
from novacron.workflow.definition import Irreversible, Step, StepContext, Workflow

GONE = frozenset({"vm_not_here", "vm_unknown"})


class VmWorkflows:
    """``vm.create`` and ``vm.delete``."""

    def __init__(self, database: Database, nodes: Nodes, vms: Vms) -> None:
        self._database = database
        self._nodes = nodes
        self._vms = vms

    def workflows(self) -> tuple[Workflow, ...]:
        """Both, with their steps in order."""
        cache = Irreversible("an image at a node is content that the next VM uses")
        create = (
            Step("reserve", self._reserve, undo=self._drop_record),
            Step("images", self._supply, undo=cache),
            Step("create", self._create, undo=self._remove),
            Step("start", self._start, undo=self._stop),
            Step("record", self._record, undo=Irreversible("the last step has nothing after it")),
        )
        delete = (
            Step("stop", self._stop, undo=Irreversible("whoever deletes a VM wants it off")),
            Step("remove", self._remove, undo=Irreversible("disks are gone"), point_of_no_return=True),
            Step("forget", self._drop_record, undo=Irreversible("the VM is gone")),
        )
        return Workflow("vm.create", create), Workflow("vm.delete", delete)

    async def _reserve(self, _: StepContext) -> None:
        """The record was put down with the job; here is its undo."""

    async def _supply(self, context: StepContext) -> None:
        spec = _spec(context)
        images = await self._database.read(lambda tx: specs.images_of(tx, spec, disks=True))
        await self._vms.supply(_node(context), images)

    async def _create(self, context: StepContext) -> None:
        await self._nodes.call(_node(context), "vm.create", VmCreate(_vm(context), _spec(context), 1), VmReport)

    async def _remove(self, context: StepContext) -> None:
        await self._nodes.call(_node(context), "vm.delete", VmRef(_vm(context)), Nothing)

    async def _start(self, context: StepContext) -> None:
        if context.input["start"]:
            await self._nodes.call(_node(context), "vm.start", VmRef(_vm(context)), VmReport)

    async def _record(self, context: StepContext) -> None:
        report = await self._nodes.call(_node(context), "vm.report", VmRef(_vm(context)), VmReport)

        def record(tx: Transaction) -> None:
            vm, now = VMS.get(tx, report.vm_id).value, self._nodes.newest(report, _node(context))
            VMS.put(tx, msgspec.structs.replace(vm, state=now.state, spec=now.spec, owner_epoch=now.epoch))

        await context.commit(record)

    async def _stop(self, context: StepContext) -> None:
        try:
            await self._nodes.call(_node(context), "vm.stop", VmStop(_vm(context), force=True), VmReport)
        except RemoteError as error:
            if error.code not in GONE:
                raise

    async def _drop_record(self, context: StepContext) -> None:
        """The name is free again."""
        await context.commit(lambda tx: VMS.delete(tx, _vm(context)))


def _vm(context: StepContext) -> VmId:
    return VmId(context.input["vm_id"])


def _node(context: StepContext) -> NodeId:
    return NodeId(context.input["node_id"])


def _spec(context: StepContext) -> VmSpec:
    return msgspec.convert(context.input["spec"], VmSpec)

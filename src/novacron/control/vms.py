"""VMs of this cluster: what people may ask of them."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec import Struct

from novacron.control import scheduler, specs
from novacron.control.errors import NodeDrainedError, NodeUnreachableError
from novacron.control.images import Images
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.control.nodes import Nodes
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError
from novacron.core.ids import MigrationId, NodeId, VmId, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite, TakeOver, VmRef, VmReport, VmResize, VmStop
from novacron.protocol.resources import Image, Migration, Node, Vm
from novacron.protocol.rest import ResizeRequest, StopRequest, TakeOverRequest, VmRequest
from novacron.protocol.vm import VmSpec
from novacron.wire.server import Duplex
from novacron.workflow import journal
from novacron.workflow.runner import WorkflowRunner

STOP_MARGIN_S: Final = 15.0
OFF: Final = frozenset({"stopped", "failed"})  # states of a VM that does not run
TAKEN_OVER: Final = "taken_over"  # an outcome of a migration


class Vms:
    """Creates and deletes by workflows; what takes a moment is asked of the node directly."""

    def __init__(self, database: Database, nodes: Nodes, images: Images, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._images = images
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def create(self, request: VmRequest) -> tuple[Vm, str]:
        """The record and the job that makes it; raises NameTakenError, NoRoomError, InvalidInputError."""
        spec = await self._database.read(lambda tx: specs.specify(tx, request))
        node = await self.place(spec, request.node)
        job_id = new_id("job")
        vm = Vm(
            id=VmId(new_id("vm")),
            name=spec.name,
            spec=spec,
            state="creating",
            owner_epoch=1,
            node_id=node.id,
            created_at=self._clock.now(),
        )

        def put(tx: Transaction) -> None:
            VMS.put(tx, vm)
            body = {"vm_id": vm.id, "node_id": node.id, "spec": msgspec.to_builtins(spec), "start": request.start}
            journal.submit(tx, job_id, "vm.create", f"/api/v1/vms/{vm.id}", body)

        await self._database.write(put)
        self.runner.wake()
        return vm, job_id

    async def place(self, spec: VmSpec, wanted: str = "", *, source: str = "", avoid: Collection[str] = ()) -> Node:
        """The node for a VM, by the room that there is at this moment. See ``scheduler.place``."""
        nodes = []
        for node in await self._database.read(lambda tx: list(NODES.every(tx))):
            fresh = node
            if node.state == "ready":
                try:
                    description = await self._nodes.describe(node.id)
                    fresh = msgspec.structs.replace(node, capabilities=description.capabilities)
                except NodeUnreachableError:
                    fresh = msgspec.structs.replace(node, state="unreachable")
            nodes.append(fresh)
        return scheduler.place(nodes, spec, wanted, source=source, avoid=avoid)

    async def supply(self, node_id: NodeId, images: list[Image]) -> None:
        """Bring images to a node."""

        async def presence(ref: ImageRef) -> ImagePresence:
            return await self._nodes.call(node_id, "image.presence", ref, ImagePresence)

        async def write(part: ImageWrite) -> ImagePresence:
            return await self._nodes.call(node_id, "image.write", part, ImagePresence)

        for image in images:
            await self._images.ship(image, presence, write)

    async def start(self, reference: str) -> Vm:
        """A cold boot; what it boots from is brought to its node first. Raises NodeDrainedError."""
        vm = await self._get(reference)
        images = await self._database.read(lambda tx: specs.images_of(tx, vm.spec, disks=False))
        await self.supply(_node_of(vm), images)
        await self._database.read(lambda tx: _check_open(tx, vm))
        return await self._ask(vm, "vm.start", VmRef(vm.id))

    async def pause(self, reference: str) -> Vm:
        """Hold it."""
        vm = await self._get(reference)
        return await self._ask(vm, "vm.pause", VmRef(vm.id))

    async def resume(self, reference: str) -> Vm:
        """Let it go on."""
        vm = await self._get(reference)
        return await self._ask(vm, "vm.resume", VmRef(vm.id))

    async def stop(self, reference: str, request: StopRequest) -> Vm:
        """Press the power button and wait for the guest, or pull the plug."""
        vm = await self._get(reference)
        client = await self._nodes.client(_node_of(vm))
        message = VmStop(vm.id, request.force, request.timeout_ms)
        report = await client.call("vm.stop", message, VmReport, timeout_s=request.timeout_ms / 1000 + STOP_MARGIN_S)
        return await self._noted(vm, report)

    async def resize(self, reference: str, request: ResizeRequest) -> Vm:
        """Another number of CPUs, amount of memory or size of disks."""
        vm = await self._get(reference)
        return await self._ask(vm, "vm.resize", VmResize(vm.id, specs.resized(vm.spec, request)))

    async def take_over(self, reference: str, request: TakeOverRequest) -> Vm:
        """An operator attests that nobody else runs it: the node here owns it, at a fresh epoch.

        ``reference`` may be of a VM that has left, or has not arrived: it is known by its migration. Raises
        ResourceUnknownError, and what the node refuses.
        """
        migration, node = await self._database.read(lambda tx: _last_move(tx, reference))
        message = TakeOver(migration.vm_id, request.attestation)
        report = await self._nodes.call(node.id, "vm.take_over", message, VmReport)
        await self._database.write(lambda tx: _note_take_over(tx, migration.id, request.attestation))
        await self._nodes.note(report, node.id)
        return await self._get(migration.vm_id)

    async def delete(self, reference: str, *, force: bool) -> str:
        """The job that removes it; a running one only by ``force``. Raises ConflictError."""
        vm = await self._get(reference)
        if vm.state not in OFF and not force:
            raise ConflictError(f"VM {vm.name} is {vm.state}", next_command=f"novacron vm stop {vm.name}")
        job_id = new_id("job")
        await self.runner.submit(job_id, "vm.delete", f"/api/v1/vms/{vm.id}", {"vm_id": vm.id, "node_id": vm.node_id})
        return job_id

    @asynccontextmanager
    async def console(self, reference: str) -> AsyncIterator[Duplex]:
        """Bytes to and from its serial console."""
        vm = await self._get(reference)
        client = await self._nodes.client(_node_of(vm))
        async with client.duplex("vm.console", VmRef(vm.id)) as both:
            yield both

    async def _get(self, reference: str) -> Vm:
        return (await self._database.read(lambda tx: VMS.get(tx, reference))).value

    async def _ask(self, vm: Vm, method: str, request: Struct) -> Vm:
        return await self._noted(vm, await self._nodes.call(_node_of(vm), method, request, VmReport))

    async def _noted(self, vm: Vm, report: VmReport) -> Vm:
        await self._nodes.note(report, _node_of(vm))
        return await self._get(vm.id)


def _check_open(tx: Transaction, vm: Vm) -> None:
    """A node that is drained boots nothing."""
    node = NODES.get(tx, _node_of(vm)).value
    if node.drain and vm.state in OFF:
        raise NodeDrainedError(
            f"node {node.name} is {node.drain}, and starts no VM", next_command=f"novacron node undrain {node.name}"
        )


def _last_move(tx: Transaction, reference: str) -> tuple[Migration, Node]:
    """The newest migration of a VM, and the node of this cluster that is an end of it; raises ResourceUnknownError."""
    moves = [move for move in MIGRATIONS.every(tx) if reference in {move.vm_id, move.vm_name}]
    if not moves:
        vm = VMS.get(tx, reference).value
        raise ConflictError(
            f"VM {vm.name} was never handed over: there is nothing to take over",
            next_command=f"novacron vm show {vm.name}",
        )
    last = max(moves, key=lambda move: move.started_at)
    return last, NODES.get(tx, last.source_node if last.direction == "outgoing" else last.target_node).value


def _note_take_over(tx: Transaction, migration_id: MigrationId, attestation: str) -> None:
    found = MIGRATIONS.get(tx, migration_id).value
    taken = msgspec.structs.replace(found, outcome=TAKEN_OVER, attestation=attestation)
    MIGRATIONS.put(tx, taken, named=False)


def _node_of(vm: Vm) -> NodeId:
    if vm.node_id is None:
        raise ConflictError(f"VM {vm.name} has no node", next_command=f"novacron vm show {vm.name}")
    return vm.node_id

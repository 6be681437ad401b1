"""Nodes taken out of service, and back: drained before a host is switched off, removed when it is gone for good."""

import msgspec

from novacron.control import batches
from novacron.control.batches import Batches
from novacron.control.draining import DRAINING
from novacron.control.errors import BatchRefusedError, NodeInUseError
from novacron.control.kinds import BATCHES, MIGRATIONS, NODES, VMS
from novacron.control.moves import WINDOW
from novacron.control.nodes import Nodes
from novacron.control.vms import OFF
from novacron.core.clock import Clock
from novacron.core.errors import InvalidInputError
from novacron.core.ids import ClusterId
from novacron.database.database import Database, Transaction
from novacron.protocol.resources import Batch, Node, Vm
from novacron.protocol.rest import DrainRequest


class Maintenance:
    """What people may ask."""

    def __init__(self, database: Database, nodes: Nodes, batches: Batches, own: ClusterId, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._batches = batches
        self._own = own
        self._clock = clock

    async def drain(self, reference: str, request: DrainRequest) -> Batch:
        """From now on the node takes no VM, and a batch moves away what runs there; asking twice is one batch.

        Raises BatchRefusedError, InvalidInputError, PeerUnknownError, ResourceUnknownError.
        """
        to = await self._batches.destination(request.to)

        def drain(tx: Transaction) -> Batch:
            node = NODES.get(tx, reference).value
            if to.cluster_id == self._own and to.node == node.name:
                raise InvalidInputError(
                    f"node {node.name} cannot be drained to itself", next_command="novacron node list"
                )
            begun = _batch_of(tx, node)
            if begun is None:
                NODES.put(tx, msgspec.structs.replace(node, drain=DRAINING))
                return batches.begin(tx, to, request, self._clock.now(), drains=node.name)
            if (begun.target_cluster, begun.target_node) != (to.cluster, to.node):
                raise BatchRefusedError(
                    f"node {node.name} is being drained to another place, by batch {begun.id}",
                    next_command=f"novacron batch cancel {begun.id}",
                )
            return begun

        batch = await self._database.write(drain)
        self._batches.runner.wake()
        return batch

    async def undrain(self, reference: str) -> Node:
        """The node takes VMs again; what is still being moved away stays. Harmless when it takes them already."""

        def undrain(tx: Transaction) -> Node:
            node = msgspec.structs.replace(NODES.get(tx, reference).value, drain="")
            begun = _batch_of(tx, node)
            if begun is not None:
                batches.cancel(tx, begun)
            NODES.put(tx, node)
            return node

        return await self._database.write(undrain)

    async def remove(self, reference: str) -> None:
        """Forget a node that serves no more; raises NodeInUseError, ResourceUnknownError."""

        def remove(tx: Transaction) -> Node:
            node = NODES.get(tx, reference).value
            _check_unused(tx, node)
            NODES.delete(tx, node.id)
            return node

        removed = await self._database.write(remove)
        await self._nodes.forget(removed.id)


def _batch_of(tx: Transaction, node: Node) -> Batch | None:
    """The one that drains this node now, if it is not being cancelled."""
    every = BATCHES.every(tx)
    return next((b for b in every if b.drains == node.name and not b.outcome and not b.cancelling), None)


def _check_unused(tx: Transaction, node: Node) -> None:
    vms = [vm for vm in VMS.every(tx) if vm.node_id == node.id]
    if vms:
        names = ", ".join(vm.name for vm in vms)
        raise NodeInUseError(f"node {node.name} has VMs: {names}", next_command=_way_out(node, vms))
    draining = _batch_of(tx, node)
    if draining is not None:
        raise NodeInUseError(f"node {node.name} is being drained", next_command=f"novacron batch watch {draining.id}")
    for migration in MIGRATIONS.every(tx):
        under_way = not migration.outcome or migration.phase == WINDOW
        if under_way and node.name in {migration.source_node, migration.target_node}:
            raise NodeInUseError(
                f"node {node.name} has a part in migration {migration.id}",
                next_command=f"novacron migration show {migration.id}",
            )
    if node.state == "ready":
        raise NodeInUseError(
            f"node {node.name} serves: stop its process first",
            next_command=f"novacron node remove {node.name} (once it is unreachable)",
        )


def _way_out(node: Node, vms: list[Vm]) -> str:
    if any(vm.state not in OFF for vm in vms):
        return f"novacron node drain {node.name}"
    return f"novacron vm delete {vms[0].name}"

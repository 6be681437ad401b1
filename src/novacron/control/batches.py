"""Batches: many VMs sent to one place. Started and cancelled here, moved by ``batch_workflow``."""

from collections.abc import Iterable, Iterator

import msgspec

from novacron.control import hours, moves
from novacron.control.batch_workflow import WORKFLOW, BatchJob
from novacron.control.errors import BatchRefusedError
from novacron.control.kinds import BATCHES, NODES, VMS
from novacron.control.peers import Destination, Peers
from novacron.control.vms import OFF
from novacron.core.clock import Clock
from novacron.core.errors import InvalidInputError
from novacron.core.ids import BatchId, ClusterId, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.resources import Batch, BatchMove, Node
from novacron.protocol.rest import BatchRequest, DrainRequest
from novacron.workflow import journal
from novacron.workflow.runner import WorkflowRunner


class Batches:
    """What people may ask."""

    def __init__(self, database: Database, peers: Peers, own: ClusterId, clock: Clock) -> None:
        self._database = database
        self._peers = peers
        self._own = own
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def start(self, request: BatchRequest) -> Batch:
        """Begin; raises InvalidInputError, PeerUnknownError, ResourceUnknownError."""
        if bool(request.vms) == bool(request.node):
            raise InvalidInputError("name VMs, or a node whose VMs are meant", next_command="novacron migrate --help")
        to = await self.destination(request.to)

        def put(tx: Transaction) -> Batch:
            found = _of_names(tx, request.vms) if request.vms else _of_node(tx, NODES.get(tx, request.node).value)
            return begin(tx, to, request, self._clock.now(), found=found)

        begun = await self._database.write(put)
        self.runner.wake()
        return begun

    async def cancel(self, reference: str) -> Batch:
        """Give up what is under way, and begin no more; raises BatchRefusedError, ResourceUnknownError."""

        def put(tx: Transaction) -> Batch:
            batch = BATCHES.get(tx, reference).value
            if batch.outcome:
                raise BatchRefusedError(
                    f"batch {batch.id} has ended: {batch.outcome}", next_command=f"novacron batch show {batch.id}"
                )
            return cancel(tx, batch)

        return await self._database.write(put)

    async def destination(self, to: str) -> Destination:
        """Where VMs shall go, a node of this cluster by its name; raises PeerUnknownError, ResourceUnknownError."""
        found = await self._peers.destination(to)
        if found.node and found.cluster_id == self._own:
            node = await self._database.read(lambda tx: NODES.get(tx, found.node))
            return Destination(found.cluster_id, found.cluster, node.value.name)
        return found


def begin(
    tx: Transaction,
    to: Destination,
    request: BatchRequest | DrainRequest,
    now: float,
    *,
    found: Iterable[BatchMove] = (),
    drains: str = "",
) -> Batch:
    """Put down a batch and its job; the moves of one that ``drains`` a node are found on the way.

    Raises InvalidInputError for a time window that cannot be.
    """
    hours.check(request.policy.window)
    wait = hours.wait_for(request.policy.window, now)
    batch = Batch(
        id=BatchId(new_id("batch")),
        target_cluster=to.cluster,
        target_node=to.node,
        drains=drains,
        concurrency=request.concurrency,
        priority=request.policy.priority,
        moves=moves.in_order(found),
        begins_at=wait.begins_at if wait else 0.0,
        started_at=now,
    )
    BATCHES.put(tx, batch, named=False)
    job = BatchJob(batch.id, to.cluster_id, to.node, request.policy)
    job_id = batch.id.replace("batch-", "job-", 1)
    journal.submit(tx, job_id, WORKFLOW, f"/api/v1/batches/{batch.id}", msgspec.to_builtins(job))
    return batch


def cancel(tx: Transaction, batch: Batch) -> Batch:
    """Ask a batch for its end; its job sees it."""
    cancelling = msgspec.structs.replace(batch, cancelling=True)
    if cancelling != batch:
        BATCHES.put(tx, cancelling, named=False)
    return cancelling


def _of_names(tx: Transaction, names: Iterable[str]) -> Iterator[BatchMove]:
    """Every VM once; one that cannot move says so when its turn comes."""
    vms = {vm.id: vm for vm in (VMS.get(tx, name).value for name in names)}
    for vm in vms.values():
        node = NODES.find(tx, vm.node_id or "")
        yield moves.of_vm(vm, node.value.name if node else "")


def _of_node(tx: Transaction, node: Node) -> Iterator[BatchMove]:
    """What is there now."""
    for vm in VMS.every(tx):
        if vm.node_id == node.id:
            off = vm.state in OFF
            yield moves.staying(vm, node.name, f"novacron vm start {vm.name}") if off else moves.of_vm(vm, node.name)

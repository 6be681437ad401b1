"""A batch as a durable job: many VMs, a few at a time, each by a migration of its own.

What is known of each VM stands in the batch's record, and changes in the transaction that begins or sees its migration:
a controller that is started again goes on from there. One VM's failure is that VM's, and the others move on.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, Self

import msgspec
import structlog
from msgspec import Struct

from novacron.control import attempts, batch_hours, draining, hours, moves
from novacron.control.cost import AT_ONCE, Costs
from novacron.control.errors import NodeUnreachableError
from novacron.control.kinds import BATCHES, MIGRATIONS, NODES, VMS
from novacron.control.migrations import Migrations
from novacron.control.peers import Destination
from novacron.control.slots import Slots
from novacron.control.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import BatchId, ClusterId, MigrationId, VmId, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.plan import Prediction
from novacron.protocol.resources import Batch, BatchMove, Cluster, Problem
from novacron.workflow.definition import Irreversible, Step, StepContext, Workflow

WORKFLOW: Final = "batch"
LOOK_EVERY_S: Final = 0.5
log = structlog.get_logger()


class BatchJob(Struct, frozen=True):
    """Input of the job."""

    batch_id: BatchId
    target: ClusterId
    target_node: str
    policy: MigrationPolicy

    @classmethod
    def of(cls, context: StepContext) -> Self:
        """As the job keeps it."""
        return msgspec.convert(context.input, cls)


class BatchWorkflow:
    """``batch``: of VMs that were named, or of a node that is drained."""

    def __init__(
        self, database: Database, vms: Vms, migrations: Migrations, costs: Costs, *, own: Cluster, clock: Clock
    ) -> None:
        self._database = database
        self._costs = costs
        self._vms = vms
        self._migrations = migrations
        self._own = own
        self._clock = clock

    def workflow(self) -> Workflow:
        """Its steps, in order."""
        steps = (
            Step("begin", self._begin, undo=self._abandon),
            Step("move", self._move, undo=Irreversible("every migration has its own undo")),
            Step("close", self._close, undo=Irreversible("what has moved stays where it is")),
        )
        return Workflow(WORKFLOW, steps)

    async def _begin(self, _: StepContext) -> None:
        """The record was put down with the job; here is what closes it."""

    async def _move(self, context: StepContext) -> None:
        """Until nothing moves any more."""
        job = BatchJob.of(context)
        looked: set[tuple[VmId, float]] = set()
        while not moves.over(batch := await context.commit(lambda tx: _look(tx, job.batch_id))):
            if batch.cancelling:
                await self._cancel(batch)
            elif await self._is_open(context, job):
                await self._predict(context, job, batch, looked)
                await self._begin_more(context, job)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _close(self, context: StepContext) -> None:
        """Say what it came to, and of a node whether it is empty."""
        batch_id = BatchJob.of(context).batch_id

        def close(tx: Transaction) -> None:
            batch = BATCHES.get(tx, batch_id).value
            if batch.drains:
                batch = _close_drain(tx, batch)
            _put_end(tx, batch, self._clock.now())

        await context.commit(close)

    async def _abandon(self, context: StepContext) -> None:
        """Undo of ``begin``: nothing more begins; what is under way goes on by itself."""
        batch_id = BatchJob.of(context).batch_id

        def abandon(tx: Transaction) -> None:
            batch = BATCHES.get(tx, batch_id).value
            look = f"novacron batch show {batch.id}"
            problem = Problem(context.error_code, context.error_cause, context.error_next or look)
            left = tuple(move if move.outcome else moves.ended(move, "failed", problem) for move in batch.moves)
            _put_end(tx, msgspec.structs.replace(batch, moves=left, problem=problem), self._clock.now())

        await context.commit(abandon)

    async def _is_open(self, context: StepContext, job: BatchJob) -> bool:
        """Whether its time window is."""
        window, now = job.policy.window, self._clock.now()
        return window is None or await context.commit(lambda tx: batch_hours.is_open(tx, job.batch_id, window, now))

    async def _predict(
        self, context: StepContext, job: BatchJob, batch: Batch, looked: set[tuple[VmId, float]]
    ) -> None:
        """Look at the next few that wait: once, and again when the window has opened again."""
        window = job.policy.window
        opened_at = hours.opening(window, self._clock.now()).begins_at if window else 0.0
        new = [move.vm_id for move in batch.moves if moves.waits(move) and (move.vm_id, opened_at) not in looked]
        few = new[:AT_ONCE]
        if few:
            to = Destination(job.target, batch.target_cluster, job.target_node)
            predicted = await self._costs.predict(few, to, job.policy)
            looked.update((vm_id, opened_at) for vm_id in few)
            await context.commit(lambda tx: _note_costs(tx, job.batch_id, predicted))
        if window is not None:
            await context.commit(lambda tx: batch_hours.fit(tx, job.batch_id, window, self._clock.now()))

    async def _begin_more(self, context: StepContext, job: BatchJob) -> None:
        """Those whose turn it is."""
        for move in await self._database.read(lambda tx: _turns(tx, job.batch_id)):
            try:
                placed = msgspec.structs.replace(move, target_node=await self._choose(job, move))
            except NodeUnreachableError as error:  # it may pass
                waits = msgspec.structs.replace(move, problem=_problem(error))
                await context.commit(partial(_note, batch_id=job.batch_id, move=waits))
            except NovaCronError as error:
                failed = moves.ended(move, "failed", _problem(error))
                await context.commit(partial(_note, batch_id=job.batch_id, move=failed))
            else:
                await context.commit(partial(self._begin_one, job=job, move=placed))

    async def _choose(self, job: BatchJob, move: BatchMove) -> str:
        """The node that was named or, within this cluster, that has room; a peer chooses its own.

        Raises NoRoomError, NodeUnreachableError, ResourceUnknownError.
        """
        if job.target_node or job.target != self._own.id:
            return job.target_node
        spec = (await self._database.read(lambda tx: VMS.get(tx, move.vm_id))).value.spec
        busy = {node for _, node in (await self._database.read(Slots.of)).nodes}
        return (await self._vms.place(spec, source=move.source_node, avoid=busy)).name

    def _begin_one(self, tx: Transaction, *, job: BatchJob, move: BatchMove) -> None:
        """Unless its turn has passed to another meanwhile."""
        batch = BATCHES.get(tx, job.batch_id).value
        if batch.cancelling or not _take(Slots.of(tx), batch, move):
            return
        order = attempts.Order(
            migration_id=MigrationId(new_id("migration")),
            vm=move.vm_id,
            source_cluster=self._own.name,
            target=job.target,
            target_cluster=batch.target_cluster,
            wanted_node=move.target_node,
            policy=job.policy,
        )
        try:
            move = moves.followed(move, attempts.begin(tx, order, self._clock.now()))
        except NovaCronError as error:  # it cannot move, and nothing was written
            move = moves.ended(move, "failed", _problem(error))
        _note(tx, batch_id=batch.id, move=move)

    async def _cancel(self, batch: Batch) -> None:
        """Whatever still can be; what has passed its point of no return refuses, and is waited for."""
        for move in batch.moves:
            if move.migration_id is not None and not move.outcome:
                try:
                    await self._migrations.cancel(move.migration_id)
                except NovaCronError as error:
                    log.info("move_not_cancelled", migration=move.migration_id, cause=error.cause)


def _look(tx: Transaction, batch_id: BatchId) -> Batch:
    """The batch after the records of its migrations; of a node that is drained, with what stands there now."""
    batch = BATCHES.get(tx, batch_id).value
    found = [_followed(tx, move) for move in batch.moves]
    if batch.cancelling:
        found = [move if move.migration_id or move.outcome else moves.ended(move, "cancelled") for move in found]
    elif batch.drains:
        found = _with_standing(found, draining.standing(tx, NODES.get(tx, batch.drains).value))
    seen = msgspec.structs.replace(batch, moves=moves.in_order(found))
    if seen != batch:
        BATCHES.put(tx, seen, named=False)
    return seen


def _followed(tx: Transaction, move: BatchMove) -> BatchMove:
    """After the last attempt at it, with what the attempt before broke for."""
    if move.migration_id is None:
        return move
    migration = MIGRATIONS.get(tx, move.migration_id).value
    while migration.retried_by is not None:
        migration = MIGRATIONS.get(tx, migration.retried_by).value
    seen = moves.followed(move, migration)
    if migration.retry_of is None or seen.outcome:
        return seen
    return msgspec.structs.replace(seen, problem=MIGRATIONS.get(tx, migration.retry_of).value.problem)


def _with_standing(found: Iterable[BatchMove], standing: Iterable[BatchMove]) -> list[BatchMove]:
    """What has begun, and what stands on the node besides: VMs come and go while it is drained."""
    begun = [move for move in found if move.migration_id or move.outcome]
    waiting = {move.vm_id: move for move in found if moves.waits(move)}  # they know why they wait
    besides = [move for move in standing if move.vm_id not in {known.vm_id for known in begun}]
    return begun + [waiting.get(move.vm_id, move) if moves.waits(move) else move for move in besides]


def _turns(tx: Transaction, batch_id: BatchId) -> list[BatchMove]:
    """The moves that may begin now."""
    batch = BATCHES.get(tx, batch_id).value
    if batch.cancelling or any(_goes_before(other, batch) for other in BATCHES.every(tx)):
        return []
    slots = Slots.of(tx)
    return [move for move in batch.moves if _is_ready(move) and _take(slots, batch, move)]


def _goes_before(other: Batch, batch: Batch) -> bool:
    """Whether ``other`` has VMs to send over the same link, and a higher priority."""
    rival = other.priority > batch.priority and other.target_cluster == batch.target_cluster
    closed = other.outcome or other.cancelling or other.begins_at
    return rival and not closed and any(map(_is_ready, other.moves))


def _is_ready(move: BatchMove) -> bool:
    return moves.waits(move) and not moves.is_put_off(move)


def _take(slots: Slots, batch: Batch, move: BatchMove) -> bool:
    return slots.take(
        source_node=move.source_node,
        target_cluster=batch.target_cluster,
        target_node=move.target_node or batch.target_node,
        most=batch.concurrency,
    )


def _note_costs(tx: Transaction, batch_id: BatchId, predicted: Mapping[VmId, Prediction]) -> None:
    batch = BATCHES.get(tx, batch_id).value
    noted = [msgspec.structs.replace(move, predicted=predicted.get(move.vm_id, move.predicted)) for move in batch.moves]
    BATCHES.put(tx, msgspec.structs.replace(batch, moves=moves.in_order(noted)), named=False)


def _note(tx: Transaction, *, batch_id: BatchId, move: BatchMove) -> None:
    batch = BATCHES.get(tx, batch_id).value
    noted = tuple(move if known.vm_id == move.vm_id else known for known in batch.moves)
    if noted != batch.moves:
        BATCHES.put(tx, msgspec.structs.replace(batch, moves=noted), named=False)


def _close_drain(tx: Transaction, batch: Batch) -> Batch:
    """Say which VMs stay on the node, and mark it as drained when nothing runs there and nobody has undrained it."""
    node = NODES.get(tx, batch.drains).value
    if node.drain == draining.DRAINING and not draining.standing(tx, node):
        NODES.put(tx, msgspec.structs.replace(node, drain=draining.DRAINED))
    stay = [] if batch.outcome else draining.staying(tx, node)
    return msgspec.structs.replace(batch, moves=(*batch.moves, *stay))


def _put_end(tx: Transaction, batch: Batch, now: float) -> None:
    """The end of a batch, once."""
    if not batch.outcome:
        batch = msgspec.structs.replace(batch, outcome=moves.outcome_of(batch), ended_at=now)
    BATCHES.put(tx, batch, named=False)


def _problem(error: NovaCronError) -> Problem:
    return Problem(error.code, error.cause, error.next_command)

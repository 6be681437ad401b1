"""A migration as a durable job.

Until the source's node has written ``handed over``, every failure leaves the VM running where it was; whatever was made
ready elsewhere is dropped. Which of the two it is, is the node's word, never a guess: a node that is silent is asked
again for as long as it takes.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from novacron.control import attempts, hours, mirror, recovery, series, specs
from novacron.control.attempts import Wanted
from novacron.control.errors import NodeUnreachableError
from novacron.control.kinds import MIGRATIONS, VMS
from novacron.control.migrate_job import MigrateJob
from novacron.control.nodes import Nodes
from novacron.control.peers import Destination
from novacron.control.plans import Plans, settled
from novacron.control.sites import Site
from novacron.control.turn import Turn
from novacron.control.window import RETURNED, Window
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError, RemoteError
from novacron.core.ids import ClusterId
from novacron.database.database import Database, Transaction
from novacron.migration.errors import JournalError, MigrationCancelledError, MigrationError, NodeRestartedError
from novacron.protocol.migration import (
    DIRECT,
    IncomingOrder,
    MigrationReport,
    OpenRequest,
    OutgoingOffer,
    OutgoingOrder,
    check_of,
)
from novacron.protocol.node import Nothing
from novacron.protocol.resources import Migration, Plan, Problem
from novacron.workflow.definition import Irreversible, Json, Step, StepContext, Workflow
from novacron.workflow.errors import JobCancelledError

FOLLOW_EVERY_S: Final = 0.2
PATIENT: Final = 8  # tries of what needs the other cluster: a controller that is started again is back within them
TAKEN_OVER: Final = "taken_over"
OUTCOMES: Final = {
    MigrationCancelledError.code: "cancelled",
    JobCancelledError.code: "cancelled",
    TAKEN_OVER: TAKEN_OVER,
}
log = structlog.get_logger()


class MigrateWorkflow:
    """``migrate``: between clusters, or between nodes of this one."""

    def __init__(
        self,
        database: Database,
        nodes: Nodes,
        plans: Plans,
        *,
        site_of: Callable[[ClusterId], Site],
        own: ClusterId,
        clock: Clock,
    ) -> None:
        self._database = database
        self._nodes = nodes
        self._plans = plans
        self._site_of = site_of
        self._own = own
        self._clock = clock
        self._turn = Turn(database, clock)
        self._window = Window(nodes, site_of=site_of, own=own, clock=clock)

    def workflow(self) -> Workflow:
        """Its steps, in order."""
        passed = Irreversible("the VM is at the other side")
        cache = Irreversible("what a peer has of an image is content for the next time")
        steps = (
            Step("begin", self._begin, undo=self._close),
            Step("plan", self._plan, undo=Irreversible("planning touches nothing"), attempts=PATIENT),
            Step("open", self._open, undo=self._take_back),
            Step("images", self._supply, undo=cache, attempts=PATIENT),
            Step("admit", self._admit, undo=self._dismiss, attempts=PATIENT),
            Step("move", self._move, undo=Irreversible("its node undoes a move that failed"), point_of_no_return=True),
            Step("settle", self._settle, undo=passed),
            Step("window", self._window.watch, undo=passed),
            Step("recall", self._window.recall, undo=passed),
            Step("release", self._release, undo=passed),
        )
        return Workflow("migrate", steps)

    async def _begin(self, context: StepContext) -> None:
        """The records were put down with the job: until its time has come."""
        await self._turn.come(context)

    async def _plan(self, context: StepContext) -> Json:
        """What the policy leaves to a plan, and whether its window leaves time; the record says what is expected."""
        job = MigrateJob(context)
        policy = job.wanted.policy
        if policy.strategy != "auto" and policy.bandwidth_share is None and policy.window is None:
            return {}
        while True:
            await self._turn.come(context)
            plan = await self._look(context, job)
            wait = hours.wait_for_room(policy.window, plan.predicted, self._clock.now())
            if wait is None:
                return _plain(settled(plan))
            await self._turn.put_off(context, wait)

    async def _look(self, context: StepContext, job: MigrateJob) -> Plan:
        """A plan, and the record with it."""
        record, vm = await self._database.read(
            lambda tx: (MIGRATIONS.get(tx, job.migration_id).value, VMS.get(tx, job.vm_id).value)
        )
        to = Destination(job.target, record.target_cluster, job.wanted.wanted_node)
        plan = await self._plans.plan(vm, to, job.wanted.policy)

        def note(tx: Transaction) -> None:
            known = MIGRATIONS.get(tx, job.migration_id).value
            planned = msgspec.structs.replace(known, plan_id=plan.id, predicted=plan.predicted)
            MIGRATIONS.put(tx, planned, named=False)

        await context.commit(note)
        return plan

    async def _open(self, context: StepContext) -> Json:
        """The source's node burns an epoch for this attempt."""
        job = MigrateJob(context)
        offer = await self._nodes.call(
            job.node_id, "migration.open", OpenRequest(job.migration_id, job.vm_id), OutgoingOffer
        )
        return _plain(offer)

    async def _supply(self, context: StepContext) -> None:
        """What the VM boots from must be there before it is."""
        job = MigrateJob(context)
        images = await self._database.read(lambda tx: specs.images_of(tx, job.offer.spec, disks=False))
        for image in images:
            await self._site_of(job.target).supply(image)

    async def _admit(self, context: StepContext) -> Json:
        """The destination checks, chooses a node and makes it ready."""
        job, offer = MigrateJob(context), MigrateJob(context).offer
        order = IncomingOrder(
            migration_id=offer.migration_id,
            vm_id=offer.vm_id,
            epoch=offer.epoch,
            spec=offer.spec,
            source_node=offer.source_node,
            source_address=offer.source_address,
            known_state=offer.known_state,
            running=offer.running,
            node=job.wanted.wanted_node,
            check=check_of(job.policy),
            rolls_back=job.wanted.rolls_back,
            refused=job.wanted.refused,
            direct=job.policy.strategy in DIRECT,
            post_copy=job.policy.strategy == "postcopy",
        )
        return _plain(await self._site_of(job.target).admit(order))

    async def _move(self, context: StepContext) -> Json:
        """From the first page to the destination's word that it runs; raises what the node gave up for."""
        job = MigrateJob(context)
        await self._give_order(job)
        while True:
            report = await self._report(job)
            if report.state in RETURNED:
                raise _gave_up(report)
            if report.state == "settled":
                return _plain(report)
            await self._tell(job, report)
            await self._clock.sleep(FOLLOW_EVERY_S)

    async def _settle(self, context: StepContext) -> Json:
        """The VM is the destination's now, in every record."""
        job = MigrateJob(context)
        report = msgspec.convert(context.results["move"], MigrationReport)
        until = self._clock.now() + job.policy.verify_window_ms / 1000

        def settle(tx: Transaction) -> None:
            migration = MIGRATIONS.get(tx, job.migration_id).value
            vm = VMS.find(tx, job.vm_id)
            if vm is not None and job.target != self._own:
                VMS.delete(tx, job.vm_id)
            elif vm is not None:
                VMS.put(tx, msgspec.structs.replace(vm.value, migration_id=None))
            if migration.outcome:
                return  # it is repeated
            progress = msgspec.structs.replace(report.progress, phase="window")
            settled = msgspec.structs.replace(
                migration, phase="window", outcome="succeeded", progress=progress, summary=report.summary
            )
            settled = mirror.noted(settled, report)
            if (summary := report.summary) is not None and not summary.verified:
                settled = self._window.unverified(tx, job, settled, summary)
            series.follow(tx, migration, settled, self._clock.now())

        await self._site_of(job.target).progress(report)
        await context.commit(settle)
        return {"until": until}

    async def _release(self, context: StepContext) -> None:
        """The old instance ends; what it leaves is content cache."""
        job = MigrateJob(context)
        if not context.results["recall"].get("recalled"):
            await self._nodes.call(job.node_id, "migration.release", job.ref, Nothing)

        def end(tx: Transaction) -> None:
            migration = MIGRATIONS.get(tx, job.migration_id).value
            ended = msgspec.structs.replace(migration, phase="done", ended_at=self._clock.now())
            MIGRATIONS.put(tx, ended, named=False)

        await context.commit(end)

    async def _give_order(self, job: MigrateJob) -> None:
        """Begin, or find that it has begun; silence says nothing about which."""
        order = OutgoingOrder(job.migration_id, job.vm_id, job.offer.epoch, job.ready, job.policy)
        while True:
            try:
                await self._nodes.call(job.node_id, "migration.run", order, MigrationReport)
            except NodeUnreachableError as error:
                log.info("source_node_silent", migration=job.migration_id, cause=error.cause)
                await self._clock.sleep(FOLLOW_EVERY_S)
            except RemoteError as error:
                if error.code != JournalError.code:
                    raise
                return  # it has begun and ended: the report says how
            else:
                return

    async def _report(self, job: MigrateJob) -> MigrationReport:
        while True:
            try:
                return await self._nodes.call(job.node_id, "migration.report", job.ref, MigrationReport)
            except NodeUnreachableError as error:
                log.info("source_node_silent", migration=job.migration_id, cause=error.cause)
                await self._clock.sleep(FOLLOW_EVERY_S)

    async def _tell(self, job: MigrateJob, report: MigrationReport) -> None:
        """So that the destination's page moves too; it misses nothing that counts when it is not told."""
        try:
            await self._site_of(job.target).progress(report)
        except NovaCronError as error:
            log.info("destination_not_told", migration=job.migration_id, cause=error.cause)

    async def _take_back(self, context: StepContext) -> None:
        """Undo of ``open``: the node gives the attempt up, if it has not done so itself."""
        job = MigrateJob(context)
        try:
            await self._nodes.call(job.node_id, "migration.cancel", job.ref, MigrationReport)
        except RemoteError as error:
            if error.code not in {JournalError.code, "migration_unknown"}:
                raise

    async def _dismiss(self, context: StepContext) -> None:
        """Undo of ``admit``. Best effort: the node there asks the source's node itself, and drops what it has."""
        try:
            await self._site_of(MigrateJob(context).target).dismiss(MigrateJob(context).ref)
        except NovaCronError as error:
            if not error.retryable:
                raise
            log.info("destination_not_dismissed", job=context.job_id, cause=error.cause)

    async def _close(self, context: StepContext) -> None:
        """Undo of ``begin``: the record says how it ended, and the VM is free for another try."""
        job = MigrateJob(context)
        outcome = OUTCOMES.get(context.error_code, "failed")

        def close(tx: Transaction) -> None:
            found = MIGRATIONS.get(tx, job.migration_id).value
            if found.ended_at:
                return  # the undo is repeated; one that was taken over has an outcome before its end
            now = self._clock.now()
            closed = msgspec.structs.replace(found, outcome=outcome, ended_at=now)
            vm = VMS.find(tx, job.vm_id)
            if vm is not None and vm.value.migration_id == job.migration_id:
                VMS.put(tx, msgspec.structs.replace(vm.value, migration_id=None))
            if outcome == "failed":
                closed = _failed(tx, closed, context, job.wanted, now)
            MIGRATIONS.put(tx, closed, named=False)

        await context.commit(close)


def _failed(tx: Transaction, closed: Migration, context: StepContext, wanted: Wanted, now: float) -> Migration:
    """The record of an attempt that broke, and the attempt that follows it, if one does."""
    closed = msgspec.structs.replace(closed, failure=str(recovery.classify(context.error_code)))
    again = attempts.follow_up(tx, closed, wanted, now)
    if again is not None:
        following = f"novacron migration watch {again.id}"
    else:
        following = f"novacron migrate {closed.vm_name} --to {closed.target_cluster} (what had come is not sent again)"
    problem = Problem(context.error_code, context.error_cause, context.error_next or following)
    return msgspec.structs.replace(closed, problem=problem, retried_by=again.id if again else None)


def _plain(value: msgspec.Struct) -> Json:
    plain: Json = msgspec.to_builtins(value)
    return plain


def _gave_up(report: MigrationReport) -> NovaCronError:
    """What the source's node took its VM back for; one that does not remember has been started again since."""
    if report.state == TAKEN_OVER:
        code, cause = TAKEN_OVER, report.error_cause or "the VM was taken over on an operator's word"
    elif report.error_code:
        code, cause = report.error_code, report.error_cause
    else:
        code = NodeRestartedError.code
        cause = "the source's node was started again before it had handed the VM over"
    return RemoteError(
        cause,
        code=code,
        exit_code=MigrationError.exit_code,
        http_status=MigrationError.http_status,
        next_command=report.error_next,
    )

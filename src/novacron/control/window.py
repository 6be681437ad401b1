"""After the hand-over: the guest is watched for a while, and comes back when it is not well, as its policy says."""

from collections.abc import Callable
from typing import Final

import structlog

from novacron.control import unverified
from novacron.control.errors import NodeUnreachableError
from novacron.control.kinds import MIGRATIONS
from novacron.control.migrate_job import MigrateJob
from novacron.control.nodes import Nodes
from novacron.control.sites import Site
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.core.ids import ClusterId
from novacron.database.database import Transaction
from novacron.protocol.migration import Condition, MigrationReport, MigrationSummary
from novacron.protocol.resources import Migration
from novacron.workflow.definition import Json, StepContext

LOOK_EVERY_S: Final = 0.5  # once the window is over, and the node is silent
WATCH_EVERY_S: Final = 1.0
RETURNED: Final = frozenset({"aborted", "reclaimed", "taken_over"})  # the VM is the source's again
log = structlog.get_logger()


class Window:
    """Steps of a migration, see ``migrate_workflow``."""

    def __init__(self, nodes: Nodes, *, site_of: Callable[[ClusterId], Site], own: ClusterId, clock: Clock) -> None:
        self._nodes = nodes
        self._site_of = site_of
        self._own = own
        self._clock = clock

    def unverified(self, tx: Transaction, job: MigrateJob, settled: Migration, summary: MigrationSummary) -> Migration:
        """It goes back by a migration, with all that it has done; one that has done nothing is recalled, see below."""
        if job.policy.on_unverified == "keep" or summary.broken:
            return unverified.keep(settled, summary.verdict)
        if summary.lifeless:
            return unverified.fetching(settled, summary.verdict)
        return self._send_back(tx, job, settled, summary.verdict)

    def _send_back(self, tx: Transaction, job: MigrateJob, migration: Migration, cause: str) -> Migration:
        own = job.target == self._own
        return unverified.send_back(tx, migration, job.policy, cause, holder=job.target, own=own)

    async def watch(self, context: StepContext) -> Json:
        """While it lasts the guest is watched, and a rollback finds the old instance still there.

        It does not end while the guest's node is silent: what is kept here may be the only copy.
        """
        job, until = MigrateJob(context), context.results["settle"]["until"]
        summary = job.moved.summary
        if summary is not None and summary.lifeless:
            return {"died": summary.verdict}
        while job.policy.verify_window_ms:
            seen = await self._look(job)
            if seen.state == "dead":
                return {"died": seen.cause}
            if self._clock.now() >= until and seen.state != "silent":
                break
            await self._clock.sleep(max(LOOK_EVERY_S, min(WATCH_EVERY_S, until - self._clock.now())))
        return {}

    async def recall(self, context: StepContext) -> Json:
        """A guest that died over there goes on here; the record says what was lost."""
        job, cause = MigrateJob(context), context.results["window"].get("died")
        if cause is None:
            return {}
        report = await self._fetch(job) if job.policy.on_unverified == "rollback" else None
        if report is not None and report.state in RETURNED:
            await context.commit(lambda tx: unverified.gone_on(tx, job.migration_id, report, cause))
            await self._site_of(job.target).progress(report)
            return {"recalled": True}
        lives = (await self._look(job)).state == "well"

        def stay(tx: Transaction) -> None:
            migration = MIGRATIONS.get(tx, job.migration_id).value
            if report is not None and lives:
                stays = self._send_back(tx, job, migration, cause)
            else:
                stays = unverified.keep(migration, cause, unverified.DIED)
            MIGRATIONS.put(tx, stays, named=False)

        await context.commit(stay)
        await self._clock.sleep(max(0.0, context.results["settle"]["until"] - self._clock.now()))
        return {}

    async def _look(self, job: MigrateJob) -> Condition:
        try:
            return await self._nodes.call(job.node_id, "migration.look", job.ref, Condition)
        except NodeUnreachableError as error:
            return Condition("silent", error.cause)

    async def _fetch(self, job: MigrateJob) -> MigrationReport | None:
        """The node's word once it is known whether the guest is its own again; None when nothing is left there."""
        try:
            return await self._nodes.call(job.node_id, "migration.recall", job.ref, MigrationReport)
        except RemoteError as error:
            if error.retryable:
                raise
            log.info("not_recalled", migration=job.migration_id, cause=error.cause)
            return None

"""A rollback after the point of no return: a migration the other way, asked of whoever owns the VM now.

Nothing that the guest has done since is lost. The old, paused instance never goes on by itself.
"""

from typing import Final

import msgspec

from novacron.control import rollbacks
from novacron.control.kinds import MIGRATIONS
from novacron.control.migrations import ARRIVED, Migrations
from novacron.control.peers import Peers
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.core.ids import ClusterId, MigrationId, VmId
from novacron.database.database import Database, Transaction
from novacron.migration.errors import MigrationError
from novacron.protocol.migration import MigrationPolicy, MigrationRef
from novacron.protocol.peer import ReturnVm
from novacron.protocol.resources import Migration, Problem
from novacron.workflow.definition import Irreversible, Step, StepContext, Workflow

LOOK_EVERY_S: Final = 0.5


class RollbackWorkflow:
    """``rollback``."""

    def __init__(self, database: Database, peers: Peers, migrations: Migrations, own: ClusterId, clock: Clock) -> None:
        self._database = database
        self._peers = peers
        self._migrations = migrations
        self._own = own
        self._clock = clock

    def workflow(self) -> Workflow:
        """Its steps, in order."""
        elsewhere = Irreversible("the way back is a migration of its own, with its own undo")
        steps = (
            Step("begin", self._begin, undo=self._tell),
            Step("ask", self._ask, undo=elsewhere),
            Step("follow", self._follow, undo=elsewhere),
            Step("record", self._record, undo=Irreversible("the VM is back")),
        )
        return Workflow("rollback", steps)

    async def _begin(self, _context: StepContext) -> None:
        """The record was put down with the job."""

    async def _tell(self, context: StepContext) -> None:
        """Undo of ``begin``: the VM is where it was, and the record says why."""

        def tell(tx: Transaction) -> None:
            migration = MIGRATIONS.get(tx, context.input["rolls_back"]).value
            if migration.outcome not in ARRIVED:
                return  # it has come back another way, or was taken over
            cause = f"the way back of VM {migration.vm_name} failed: {context.error_cause}"
            if migration.phase == "window":
                following = f"novacron migration rollback {migration.id}"
            else:
                following = (
                    f"novacron migrate {migration.vm_name} --to {migration.source_cluster} "
                    f"--context {migration.target_cluster}"
                )
            problem = Problem(rollbacks.FAILED, cause, context.error_next or following)
            MIGRATIONS.put(tx, msgspec.structs.replace(migration, problem=problem), named=False)

        await context.commit(tell)

    async def _ask(self, context: StepContext) -> None:
        """Start the way back where the VM is."""
        given = context.input
        request = ReturnVm(
            VmId(given["vm_id"]),
            MigrationId(given["rolls_back"]),
            MigrationId(given["migration_id"]),
            msgspec.convert(given["policy"], MigrationPolicy),
        )
        if given["holder"] == self._own:
            await self._migrations.send_back(self._own, request, wanted_node=given["wanted_node"])
            return
        peer = await self._peers.get(given["holder"])
        await self._peers.call(peer, "peer.return_vm", request, Migration)

    async def _follow(self, context: StepContext) -> None:
        """Until it has ended, attempt by attempt; raises what the last one failed for."""
        attempt = MigrationId(context.input["migration_id"])
        while True:
            way_back = await self._look(context, attempt)
            if way_back.outcome in ARRIVED:
                return
            if way_back.retried_by is not None:
                attempt = way_back.retried_by
            elif way_back.outcome:
                problem = way_back.problem
                raise RemoteError(
                    problem.cause if problem else f"the way back was {way_back.outcome}",
                    code=problem.code if problem else MigrationError.code,
                    exit_code=MigrationError.exit_code,
                    http_status=MigrationError.http_status,
                    next_command=f"novacron migration show {way_back.id}",
                )
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self, context: StepContext, attempt: MigrationId) -> Migration:
        given = context.input
        ref = MigrationRef(attempt, VmId(given["vm_id"]))
        if given["holder"] == self._own:
            return (await self._database.read(lambda tx: MIGRATIONS.get(tx, ref.migration_id))).value
        peer = await self._peers.get(given["holder"])
        return await self._peers.call(peer, "peer.migration", ref, Migration)

    async def _record(self, context: StepContext) -> None:
        def record(tx: Transaction) -> None:
            rolled_back = MIGRATIONS.get(tx, context.input["rolls_back"]).value
            MIGRATIONS.put(tx, msgspec.structs.replace(rolled_back, outcome="rolled_back"), named=False)

        await context.commit(record)

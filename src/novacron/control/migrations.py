"""Migrations of this cluster's VMs: started, cancelled, rolled back."""

from typing import Final

from novacron.control import attempts, plans, rollbacks
from novacron.control.errors import MigrationRefusedError
from novacron.control.kinds import MIGRATIONS, NODES, PLANS, VMS
from novacron.control.mirror import OUTGOING
from novacron.control.nodes import Nodes
from novacron.control.peers import Destination, Peers
from novacron.control.unverified import UNVERIFIED
from novacron.core.clock import Clock
from novacron.core.errors import InvalidInputError, RemoteError
from novacron.core.ids import ClusterId, MigrationId, new_id
from novacron.database.database import Database, Transaction
from novacron.migration.errors import NotRollbackableError
from novacron.protocol.migration import MigrationPolicy, MigrationRef, MigrationReport
from novacron.protocol.peer import ReturnVm
from novacron.protocol.resources import Cluster, Migration
from novacron.protocol.rest import MigrateRequest
from novacron.workflow import journal
from novacron.workflow.runner import WorkflowRunner

ARRIVED: Final = frozenset({"succeeded", UNVERIFIED})


class Migrations:
    """What people may ask."""

    def __init__(self, database: Database, nodes: Nodes, peers: Peers, cluster: Cluster, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._peers = peers
        self._cluster = cluster
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def start(self, request: MigrateRequest) -> Migration:
        """Begin; raises MigrationRefusedError, PeerUnknownError, ResourceUnknownError."""
        to = await self._peers.destination(request.to)
        if to.cluster_id == self._cluster.id and not to.node:
            raise MigrationRefusedError(
                f"the VM is in cluster {self._cluster.name} already: name a node (/NODE) or another cluster",
                next_command="novacron federation list",
            )
        migration_id = MigrationId(new_id("migration"))
        if request.plan_id:
            return await self._follow_plan(migration_id, request, to)
        return await self._submit(
            migration_id, request.vm, target=to.cluster_id, target_name=to.cluster, node=to.node, policy=request.policy
        )

    async def _follow_plan(self, migration_id: MigrationId, request: MigrateRequest, to: Destination) -> Migration:
        """Just as was planned; raises PlanStaleError in the transaction that would have begun it."""
        if request.policy != MigrationPolicy():
            raise InvalidInputError(
                "a plan has a policy of its own: give either", next_command=f"novacron plan show {request.plan_id}"
            )

        def begin(tx: Transaction) -> Migration:
            plan, now = PLANS.get(tx, request.plan_id).value, self._clock.now()
            plans.check(plan, VMS.get(tx, request.vm).value, to, now)
            order = attempts.Order(
                migration_id,
                plan.vm_id,
                self._cluster.name,
                to.cluster_id,
                to.cluster,
                plan.target_node,
                plans.settled(plan),
                plan,
            )
            return attempts.begin(tx, order, now)

        begun = await self._database.write(begin)
        self.runner.wake()
        return begun

    async def send_back(self, target: ClusterId, request: ReturnVm, *, wanted_node: str = "") -> Migration:
        """Whoever gave a VM away wants it again; asking twice is one migration."""
        known = await self._database.read(lambda tx: MIGRATIONS.find(tx, request.migration_id))
        if known is not None:
            return known.value
        name = self._cluster.name if target == self._cluster.id else (await self._peers.get(target)).name
        came = await self._database.read(lambda tx: MIGRATIONS.get(tx, request.rolls_back))
        if came.value.vm_id != request.vm_id:
            raise MigrationRefusedError(f"migration {request.rolls_back} was of another VM")
        return await self._submit(
            request.migration_id,
            request.vm_id,
            target=target,
            target_name=name,
            node=wanted_node,
            policy=request.policy,
            rolls_back=request.rolls_back,
        )

    async def cancel(self, reference: str) -> Migration:
        """Give up before the point of no return; after it the node refuses. Harmless when it has ended so."""
        migration = (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value
        if migration.direction != OUTGOING:
            raise MigrationRefusedError(
                f"{migration.source_cluster} runs this migration: cancel it there",
                next_command=f"novacron migration cancel {migration.id} --context {migration.source_cluster}",
            )
        if migration.outcome:
            raise MigrationRefusedError(
                f"migration {migration.id} has ended: {migration.outcome}",
                next_command=f"novacron migration cancel {migration.retried_by}"
                if migration.retried_by
                else f"novacron migration show {migration.id}",
            )
        if migration.phase != "waiting":
            await self._cancel_at_node(migration)
        await self._database.write(lambda tx: journal.request_cancel(tx, attempts.job_of(migration.id)))
        return (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value

    async def _cancel_at_node(self, migration: Migration) -> None:
        node = await self._database.read(lambda tx: NODES.get(tx, migration.source_node))
        ref = MigrationRef(migration.id, migration.vm_id)
        try:
            await self._nodes.call(node.value.id, "migration.cancel", ref, MigrationReport)
        except RemoteError as error:
            if error.code != "migration_unknown":  # it has not come to the node yet
                raise

    async def rollback(self, reference: str) -> Migration:
        """Fetch the VM again within the window; the migration that brings it back. Raises NotRollbackableError."""
        migration = (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value
        if migration.direction != OUTGOING or migration.phase != "window" or migration.outcome not in ARRIVED:
            raise NotRollbackableError(
                f"migration {migration.id} is not in its rollback window: it is {migration.outcome or 'under way'}"
                f" (phase {migration.phase})",
                next_command=f"novacron migrate {migration.vm_name} --to {migration.source_cluster}"
                f" --context {migration.target_cluster}",
            )
        own = migration.target_cluster == self._cluster.name
        holder = self._cluster.id if own else (await self._peers.get(migration.target_cluster)).id

        def begin(tx: Transaction) -> Migration:
            policy = attempts.wanted(tx, migration.id).policy
            return rollbacks.begin(tx, MIGRATIONS.get(tx, migration.id).value, policy, holder=holder, own=own)

        begun = await self._database.write(begin)
        self.runner.wake()
        return begun

    async def _submit(
        self,
        migration_id: MigrationId,
        vm: str,
        *,
        target: ClusterId,
        target_name: str,
        node: str,
        policy: MigrationPolicy,
        rolls_back: MigrationId | None = None,
    ) -> Migration:
        order = attempts.Order(
            migration_id, vm, self._cluster.name, target, target_name, node, policy, rolls_back=rolls_back
        )
        begun = await self._database.write(lambda tx: attempts.begin(tx, order, self._clock.now()))
        self.runner.wake()
        return begun

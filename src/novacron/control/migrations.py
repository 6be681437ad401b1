"""Migrations of this cluster's VMs: started, cancelled, rolled back."""

import msgspec

from novacron.control.errors import MigrationRefusedError
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.control.nodes import Nodes
from novacron.control.peers import Peers
from novacron.core.clock import Clock
from novacron.core.errors import RemoteError
from novacron.core.ids import ClusterId, MigrationId, new_id
from novacron.database.database import Database, Transaction
from novacron.migration.errors import NotRollbackableError
from novacron.protocol.migration import MigrationPolicy, MigrationRef, MigrationReport
from novacron.protocol.peer import ReturnVm
from novacron.protocol.resources import Cluster, Migration, Vm
from novacron.protocol.rest import MigrateRequest
from novacron.workflow import journal
from novacron.workflow.runner import WorkflowRunner

MOVABLE = frozenset({"running", "paused"})


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
        cluster, _, node = request.to.partition("/")
        target, name = self._cluster.id, self._cluster.name
        if cluster not in {"", self._cluster.name, self._cluster.id}:
            peer = await self._peers.get(cluster)
            target, name = peer.id, peer.name
        elif not node:
            raise MigrationRefusedError(
                f"the VM is in cluster {self._cluster.name} already: name a node (/NODE) or another cluster",
                next_command="novacron federation list",
            )
        migration_id = MigrationId(new_id("migration"))
        return await self._submit(
            migration_id, request.vm, target=target, target_name=name, node=node, policy=request.policy
        )

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
        )

    async def cancel(self, reference: str) -> Migration:
        """Give up before the point of no return; after it the node refuses. Harmless when it has ended so."""
        migration = (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value
        if migration.direction != "outgoing":
            raise MigrationRefusedError(
                f"{migration.source_cluster} runs this migration: cancel it there",
                next_command=f"novacron migration cancel {migration.id} --context {migration.source_cluster}",
            )
        if migration.outcome:
            raise MigrationRefusedError(
                f"migration {migration.id} has ended: {migration.outcome}",
                next_command=f"novacron migration show {migration.id}",
            )
        node = await self._database.read(lambda tx: NODES.get(tx, migration.source_node))
        ref = MigrationRef(migration.id, migration.vm_id)
        try:
            await self._nodes.call(node.value.id, "migration.cancel", ref, MigrationReport)
        except RemoteError as error:
            if error.code != "migration_unknown":  # it has not come to the node yet
                raise
        await self._database.write(lambda tx: journal.request_cancel(tx, job_of(migration.id)))
        return (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value

    async def rollback(self, reference: str) -> Migration:
        """Fetch the VM again within the window; the migration that brings it back. Raises NotRollbackableError."""
        migration = (await self._database.read(lambda tx: MIGRATIONS.get(tx, reference))).value
        if migration.direction != "outgoing" or migration.phase != "window" or migration.outcome != "succeeded":
            raise NotRollbackableError(
                f"migration {migration.id} is not in its rollback window: it is {migration.outcome or 'under way'}"
                f" (phase {migration.phase})",
                next_command=f"novacron migrate {migration.vm_name} --to {migration.source_cluster}"
                f" --context {migration.target_cluster}",
            )
        own = migration.target_cluster == self._cluster.name
        holder = self._cluster.id if own else (await self._peers.get(migration.target_cluster)).id
        body = {
            "vm_id": migration.vm_id,
            "rolls_back": migration.id,
            "migration_id": new_id("migration"),
            "holder": holder,
            "wanted_node": migration.source_node if own else "",
            "policy": msgspec.to_builtins(MigrationPolicy(verify_window_ms=0)),
        }
        await self.runner.submit(new_id("job"), "rollback", f"/api/v1/migrations/{migration.id}", body)
        return migration

    async def _submit(
        self,
        migration_id: MigrationId,
        vm: str,
        *,
        target: ClusterId,
        target_name: str,
        node: str,
        policy: MigrationPolicy,
    ) -> Migration:
        def put(tx: Transaction) -> Migration:
            found = VMS.get(tx, vm).value
            _check_movable(found)
            source = NODES.get(tx, found.node_id or "").value
            migration = Migration(
                id=migration_id,
                vm_id=found.id,
                vm_name=found.name,
                source_cluster=self._cluster.name,
                target_cluster=target_name,
                direction="outgoing",
                phase="prepare",
                source_node=source.name,
                started_at=self._clock.now(),
            )
            MIGRATIONS.put(tx, migration, named=False)
            VMS.put(tx, msgspec.structs.replace(found, migration_id=migration_id))
            body = {
                "migration_id": migration_id,
                "vm_id": found.id,
                "node_id": source.id,
                "target": target,
                "wanted_node": node,
                "policy": msgspec.to_builtins(policy),
            }
            journal.submit(tx, job_of(migration_id), "migrate", f"/api/v1/migrations/{migration_id}", body)
            return migration

        migration = await self._database.write(put)
        self.runner.wake()
        return migration


def job_of(migration_id: MigrationId) -> str:
    """The job that runs a migration."""
    return migration_id.replace("migration-", "job-", 1)


def _check_movable(vm: Vm) -> None:
    if vm.migration_id is not None:
        raise MigrationRefusedError(
            f"VM {vm.name} is migrating", next_command=f"novacron migration watch {vm.migration_id}"
        )
    if vm.state not in MOVABLE:
        raise MigrationRefusedError(
            f"VM {vm.name} is {vm.state}: only a running or paused VM moves",
            next_command=f"novacron vm start {vm.name}",
        )

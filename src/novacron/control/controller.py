"""The controller's application: what is below, put together, and served to nodes and peers."""

import asyncio
import hmac
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from novacron.control import saved_state
from novacron.control.admission import Admission
from novacron.control.backup_workflows import BackupWorkflows
from novacron.control.backups import Backups
from novacron.control.batch_workflow import BatchWorkflow
from novacron.control.batches import Batches
from novacron.control.checkpoint_workflows import CheckpointWorkflows
from novacron.control.checkpoints import Checkpoints
from novacron.control.cost import Costs
from novacron.control.images import Images
from novacron.control.kinds import CLUSTERS, SCHEMA
from novacron.control.maintenance import Maintenance
from novacron.control.migrate_workflow import MigrateWorkflow
from novacron.control.migrations import Migrations
from novacron.control.nodes import Nodes
from novacron.control.peers import Peers
from novacron.control.plans import Plans
from novacron.control.repositories import Repositories
from novacron.control.repository_workflows import RepositoryWorkflows
from novacron.control.rollback_workflow import RollbackWorkflow
from novacron.control.secrets import Secrets
from novacron.control.service import NodeService, PeerService
from novacron.control.sites import OwnSite, PeerSite, Site
from novacron.control.trust import TrustBundle
from novacron.control.vm_workflows import VmWorkflows
from novacron.control.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError
from novacron.core.ids import ClusterId, check_name, new_id
from novacron.core.version import VERSION
from novacron.database.database import Database, Transaction
from novacron.database.resources import incarnation
from novacron.protocol.resources import Cluster
from novacron.wire.authority import write_private
from novacron.wire.server import Server
from novacron.workflow.definition import Workflow
from novacron.workflow.runner import WorkflowRunner

TOKEN_FILE: Final = "admin.token"  # noqa: S105 - the name of a file


class Controller:
    """One cluster's controller. Use ``running``."""

    def __init__(self, database: Database, cluster: Cluster, trust: TrustBundle, data_dir: Path, clock: Clock) -> None:
        self.database = database
        self.cluster = cluster
        self.clock = clock
        self.trust = trust
        self._data_dir = data_dir
        self._token = _admin_token(data_dir)
        self.nodes = Nodes(database, trust, cluster, clock)
        self.images = Images(data_dir / "images", database)
        self.vms = Vms(database, self.nodes, self.images, clock)
        self.peers = Peers(database, trust, self.nodes, cluster, clock)
        self.migrations = Migrations(database, self.nodes, self.peers, cluster, clock)
        self.admission = Admission(database, self.nodes, self.vms, cluster, clock)
        self.plans = Plans(database, self.nodes, self.peers, self._site, clock)
        self.batches = Batches(database, self.peers, cluster.id, clock)
        self.maintenance = Maintenance(database, self.nodes, self.batches, cluster.id, clock)
        self.checkpoints = Checkpoints(database, clock)
        self._secrets = Secrets(data_dir)
        self.repositories = Repositories(database, self.nodes, self._secrets, clock)
        self.backups = Backups(database, clock)
        self.runner = WorkflowRunner(database, self._workflows(), clock)
        self.vms.runner = self.migrations.runner = self.batches.runner = self.checkpoints.runner = self.runner
        self.repositories.runner = self.backups.runner = self.runner

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        *,
        data_dir: Path,
        name: str,
        listener: socket.socket,
        clock: Clock,
        advertise: str = "",
        default_name: str = "local",
    ) -> AsyncIterator["Controller"]:
        """A controller on ``data_dir`` that serves nodes and peers on ``listener``.

        ``name`` is taken at the first start, ``default_name`` when it is empty. ``advertise`` (host:port) is where
        others reach it, if not as bound.
        """
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        host, port = listener.getsockname()[:2]
        async with AsyncExitStack() as stack:
            database = await Database.open(str(data_dir / saved_state.DATABASE), SCHEMA)
            stack.push_async_callback(database.close)
            cluster = await database.write(lambda tx: _identify(tx, name, default_name, advertise or f"{host}:{port}"))
            trust = TrustBundle.open(data_dir, cluster.id, clock)
            self = cls(database, cluster, trust, data_dir, clock)
            stack.push_async_callback(self.peers.close)
            stack.push_async_callback(self.nodes.close)
            server = Server(trust.credentials)
            NodeService(cluster, self.nodes).register(server)
            peers = PeerService(
                cluster=cluster,
                database=database,
                peers=self.peers,
                images=self.images,
                admission=self.admission,
                migrations=self.migrations,
            )
            peers.register(server)
            await server.start_on(listener)
            stack.push_async_callback(server.close)
            await self.nodes.start()
            await stack.enter_async_context(self.runner)
            tending = [asyncio.create_task(trust.keep_fresh()), asyncio.create_task(self.peers.keep_looking())]
            stack.push_async_callback(_end, tending)
            yield self

    def admin_token_matches(self, token: str) -> bool:
        """Whether ``token`` is the administrator's, in constant time."""
        return hmac.compare_digest(self._token.encode(), token.encode())

    @property
    def admin_token(self) -> str:
        """For the context file of whoever started this process."""
        return self._token

    async def save(self, target: Path) -> None:
        """See ``saved_state.save``."""
        await saved_state.save(self.database, self._data_dir, self.cluster.name, target)

    def _workflows(self) -> list[Workflow]:
        """All durable jobs of this version."""
        own = self.cluster.id
        migrate = MigrateWorkflow(self.database, self.nodes, self.plans, site_of=self._site, own=own, clock=self.clock)
        rollback = RollbackWorkflow(self.database, self.peers, self.migrations, own, self.clock)
        costs = Costs(self.database, self.plans)
        batch = BatchWorkflow(self.database, self.vms, self.migrations, costs, own=self.cluster, clock=self.clock)
        vms = VmWorkflows(self.database, self.nodes, self.vms)
        checkpoints = CheckpointWorkflows(self.database, self.nodes, self.vms, self.clock)
        repositories = RepositoryWorkflows(self.database, self.nodes, self._secrets, self.clock)
        backups = BackupWorkflows(self.database, self.nodes, self._secrets, self.clock)
        of_moves = (migrate.workflow(), rollback.workflow(), batch.workflow())
        of_copies = (*checkpoints.workflows(), *repositories.workflows(), *backups.workflows())
        return [*vms.workflows(), *of_copies, *of_moves]

    def _site(self, cluster_id: ClusterId) -> Site:
        if cluster_id == self.cluster.id:
            return OwnSite(self.admission)
        return PeerSite(self.peers, cluster_id, self.images)


def _identify(tx: Transaction, name: str, default_name: str, address: str) -> Cluster:
    """This cluster's record: its id and name are for ever, its address is today's."""
    incarnation(tx)
    known = next(CLUSTERS.every(tx), None)
    if known is None:
        known = Cluster(ClusterId(new_id("cluster")), check_name(name or default_name, "cluster"), VERSION, address)
    elif name not in {"", known.name}:
        raise ConflictError(
            f"this data folder is of cluster {known.name}, not of {name}", next_command="novacron up --data-dir NEW"
        )
    cluster = msgspec.structs.replace(known, address=address, version=VERSION)
    CLUSTERS.put(tx, cluster)
    return cluster


def _admin_token(data_dir: Path) -> str:
    """The administrator's token, made at the first start."""
    path = data_dir / TOKEN_FILE
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

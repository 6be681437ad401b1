"""What a controller answers to nodes and to other clusters: who may call what.

A node speaks for itself alone; a peer's controller speaks for its own cluster's VMs alone.
"""

from novacron.control.admission import Admission
from novacron.control.images import Images
from novacron.control.kinds import MIGRATIONS, NODES, PEERS
from novacron.control.migrations import Migrations
from novacron.control.nodes import Nodes
from novacron.control.peers import Peers
from novacron.core.errors import RefusedError
from novacron.core.ids import ClusterId, MigrationId
from novacron.core.version import VERSION
from novacron.database.database import Database
from novacron.protocol.migration import IncomingOrder, IncomingReady, MigrationRef, MigrationReport
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite, NodeAnnounce, NodeJoin, NodeRenew, Nothing
from novacron.protocol.peer import PeerIdentity, PeerJoin, PeerSummary, ReturnVm
from novacron.protocol.plan import Outlook, OutlookRequest
from novacron.protocol.resources import Cluster, Migration
from novacron.wire.identity import SpiffeId
from novacron.wire.server import Server


class NodeService:
    """For the nodes of this cluster."""

    def __init__(self, cluster: Cluster, nodes: Nodes) -> None:
        self._cluster = cluster
        self._nodes = nodes

    def register(self, server: Server) -> None:
        """Put its methods on ``server``."""
        server.anonymous("node.join", NodeJoin, self._nodes.join)
        server.method("node.renew", NodeRenew, self._nodes.renew, allow=self._allow)
        server.method("node.announce", NodeAnnounce, self._nodes.announce, allow=self._allow)

    def _allow(self, caller: SpiffeId) -> bool:
        return caller.trust_domain == self._cluster.id and caller.kind == "node"


class PeerService:
    """For the controllers of other clusters."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        database: Database,
        peers: Peers,
        images: Images,
        admission: Admission,
        migrations: Migrations,
    ) -> None:
        self._cluster = cluster
        self._database = database
        self._peers = peers
        self._images = images
        self._admission = admission
        self._migrations = migrations

    def register(self, server: Server) -> None:
        """Put its methods on ``server``."""
        allow = self._allow
        server.anonymous("peer.join", PeerJoin, self._peers.welcome)
        server.method("peer.confirm", Nothing, self.confirm, allow=allow)
        server.method("peer.summary", Nothing, self.summary, allow=allow)
        server.method("peer.image_presence", ImageRef, self.image_presence, allow=allow)
        server.method("peer.image_write", ImageWrite, self.image_write, allow=allow)
        server.method("peer.outlook", OutlookRequest, self.outlook, allow=allow)
        server.method("peer.admit", IncomingOrder, self.admit, allow=allow)
        server.method("peer.dismiss", MigrationRef, self.dismiss, allow=allow)
        server.method("peer.progress", MigrationReport, self.progress, allow=allow)
        server.method("peer.return_vm", ReturnVm, self.return_vm, allow=allow)
        server.method("peer.migration", MigrationRef, self.migration, allow=allow)

    async def confirm(self, caller: SpiffeId, _: Nothing) -> PeerIdentity:
        """A peer has proved itself."""
        return await self._peers.confirmed(caller)

    async def summary(self, _caller: SpiffeId, _: Nothing) -> PeerSummary:
        """How much room there is here."""
        nodes = await self._database.read(lambda tx: list(NODES.every(tx)))
        ready = [node.capabilities for node in nodes if node.state == "ready" and not node.drain]
        return PeerSummary(
            self._cluster.id,
            self._cluster.name,
            VERSION,
            len(ready),
            sum(room.memory_free_bytes for room in ready),
            sum(room.disk_free_bytes for room in ready),
        )

    async def image_presence(self, _caller: SpiffeId, ref: ImageRef) -> ImagePresence:
        """How much of an image is here."""
        return await self._images.presence(ref)

    async def image_write(self, _caller: SpiffeId, part: ImageWrite) -> ImagePresence:
        """The next part of an image."""
        return await self._images.write(part)

    async def outlook(self, _caller: SpiffeId, request: OutlookRequest) -> Outlook:
        """A VM of that peer may want to come."""
        return await self._admission.outlook(request)

    async def admit(self, caller: SpiffeId, order: IncomingOrder) -> IncomingReady:
        """A VM of a node of that peer wants to come."""
        if SpiffeId.parse(order.source_node).trust_domain != caller.trust_domain:
            raise RefusedError(f"{caller} cannot speak for {order.source_node}")
        return await self._admission.admit(order)

    async def dismiss(self, caller: SpiffeId, ref: MigrationRef) -> Nothing:
        """It does not come."""
        await self._check_shared(caller, ref.migration_id)
        return await self._admission.dismiss(ref)

    async def progress(self, caller: SpiffeId, report: MigrationReport) -> Nothing:
        """How far it is."""
        await self._check_shared(caller, report.migration_id)
        return await self._admission.progress(report)

    async def return_vm(self, caller: SpiffeId, request: ReturnVm) -> Migration:
        """Whoever gave a VM to this cluster wants it again."""
        await self._check_shared(caller, request.rolls_back)
        return await self._migrations.send_back(ClusterId(caller.trust_domain), request)

    async def migration(self, caller: SpiffeId, ref: MigrationRef) -> Migration:
        """A migration between that peer and this cluster."""
        await self._check_shared(caller, ref.migration_id)
        return (await self._database.read(lambda tx: MIGRATIONS.get(tx, ref.migration_id))).value

    async def _check_shared(self, caller: SpiffeId, migration_id: MigrationId) -> None:
        """A peer may only speak of migrations that it is a side of; of unknown ones there is nothing to guard."""
        found = await self._database.read(lambda tx: MIGRATIONS.find(tx, migration_id))
        peer = await self._database.read(lambda tx: PEERS.get(tx, caller.trust_domain))
        if found is not None and peer.value.name not in {found.value.source_cluster, found.value.target_cluster}:
            raise RefusedError(f"cluster {peer.value.name} has no part in migration {migration_id}")

    def _allow(self, caller: SpiffeId) -> bool:
        return caller.trust_domain != self._cluster.id and caller.kind == "controller"

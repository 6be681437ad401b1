"""The node's application: it owns the QEMU processes of its host, their disks, and the data plane."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Self

import msgspec
import structlog

from novacron.agent.arrivals import Arrivals
from novacron.agent.backups import BackupNote, Backups
from novacron.agent.checkpoint_store import CheckpointPlaces, CheckpointStore
from novacron.agent.checkpoints import Checkpoints
from novacron.agent.content_cache import ContentCache
from novacron.agent.disk_restores import DiskRestores
from novacron.agent.errors import JournalLostError
from novacron.agent.events import Events
from novacron.agent.hooks import Hooks
from novacron.agent.images import Images
from novacron.agent.incoming import IncomingMigrations
from novacron.agent.journal import Journal
from novacron.agent.open_repositories import OpenRepositories
from novacron.agent.operator import NOBODY, Operator
from novacron.agent.orphans import Orphans
from novacron.agent.outgoing import OutgoingMigrations
from novacron.agent.ram_images import RamImages
from novacron.agent.recalls import Recalls
from novacron.agent.repositories import Repositories
from novacron.agent.restores import Restores
from novacron.agent.survey import Surveys
from novacron.agent.takeovers import TakeOvers
from novacron.agent.vms import Vms
from novacron.agent.work_files import WorkFiles
from novacron.core.clock import Clock
from novacron.core.ids import NodeId, VmId, new_id
from novacron.core.settings import NodeSettings
from novacron.hypervisor.driver import Driver, ImagePath
from novacron.hypervisor.errors import HypervisorError
from novacron.migration.handover import Role
from novacron.protocol.backup import BackupOrder, BackupRef, BackupRemoval, BackupRestoreOrder, RepositoryPlace
from novacron.protocol.checkpoint import CheckpointOrder, CheckpointRef, RestoreOrder, RestoreRef
from novacron.protocol.migration import (
    HandoverQuestion,
    IncomingOrder,
    IncomingReady,
    MigrationRef,
    MigrationReport,
    OpenRequest,
    OutgoingOrder,
)
from novacron.protocol.node import (
    ImageRef,
    ImageWrite,
    NodeDescription,
    NodeEvent,
    Nothing,
    TakeOver,
    TrustUpdate,
    VmCreate,
    VmRef,
    VmReport,
    VmResize,
    VmStop,
)
from novacron.protocol.plan import HoldingsRequest, LinkSample, ProbeRequest, SurveyRequest
from novacron.protocol.repository import (
    RepositoryCheck,
    RepositoryCreate,
    RepositoryPrune,
    RepositoryUnmake,
    RepositoryWorkRef,
)
from novacron.protocol.vm import HostCapabilities, VmSpec
from novacron.wire.channel import ParallelChannel, open_channel
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId
from novacron.wire.probe import SESSION, SLOWEST_BYTES_S, answer_probe, probe
from novacron.wire.server import Server

LOOK_EVERY_S: Final = 2.0
IN_DATA_DIR: Final = CheckpointPlaces()
MakeDriver = Callable[[ImagePath], Driver]
log = structlog.get_logger()


class Agent:
    """One node. ``start`` first brings what the journal says and what runs here together, then serves.

    ``make_driver`` is given the place of the node's images, from which VMs are made.
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        data_dir: Path,
        make_driver: MakeDriver,
        credentials: Credentials,
        clock: Clock,
        operator: Operator = NOBODY,
        checkpoints: CheckpointPlaces = IN_DATA_DIR,
        migration_ports: str = NodeSettings().migration_ports,
    ) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._node_id = node_id
        self._data_dir = data_dir
        self._credentials = credentials
        self._credentials_dir = data_dir / "credentials"
        self._clock = clock
        self._events = Events()
        self._journal = Journal(data_dir / "journal.db")
        self._images = Images(data_dir / "images")
        self._driver = make_driver(self._images.path)
        self._vms = Vms(self._driver, self._journal, self._events)
        ram_images = RamImages(data_dir / "cache")
        self._hooks = Hooks(self._driver, operator, clock)
        self._outgoing = OutgoingMigrations(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            events=self._events,
            credentials=credentials,
            clock=clock,
            ram_images=ram_images,
            hooks=self._hooks,
        )
        self._arrivals = Arrivals(
            driver=self._driver, journal=self._journal, vms=self._vms, clock=clock, operator=operator, hooks=self._hooks
        )
        self._incoming = IncomingMigrations(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            events=self._events,
            credentials=credentials,
            clock=clock,
            ram_images=ram_images,
            arrivals=self._arrivals,
            hooks=self._hooks,
            ports=_range(migration_ports),
        )
        self._recalls = Recalls(journal=self._journal, vms=self._vms, outgoing=self._outgoing, credentials=credentials)
        self._orphans = Orphans(self._driver, self._journal, ram_images)
        self._surveys = Surveys(self._driver, self._journal, self._vms, credentials, clock)
        store = CheckpointStore(
            checkpoints.folder or data_dir / "checkpoints",
            checkpoints.key_file or data_dir / "checkpoints.key",
            data_dir / "checkpoint-index",
        )
        self._checkpoints = Checkpoints(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            clock=clock,
            store=store,
            folder=data_dir / "checkpoint-work",
            quota_bytes=checkpoints.quota_bytes,
        )
        self._restores = Restores(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            clock=clock,
            store=store,
            folder=data_dir / "restore-work",
        )
        opened = OpenRepositories(data_dir / "repository-index")
        self._repositories = Repositories(opened, clock)
        self._backups = Backups(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            clock=clock,
            repositories=opened,
            notes=WorkFiles(data_dir / "backup-work", BackupNote),
        )
        self._disk_restores = DiskRestores(
            driver=self._driver,
            journal=self._journal,
            vms=self._vms,
            clock=clock,
            repositories=opened,
            restores=self._restores,
        )
        self._cache = ContentCache(self._driver, self._journal, self._vms)
        self._takeovers = TakeOvers(
            journal=self._journal,
            vms=self._vms,
            outgoing=self._outgoing,
            incoming=self._incoming,
            credentials=credentials,
            clock=clock,
        )
        self._server = Server(credentials)
        self._looking: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it serves."""
        return self._server.address

    async def start(self, listener: socket.socket, advertise: str = "") -> Self:
        """Recover, and serve on a bound socket; ``advertise`` is where other nodes reach it, if not as bound.

        Raises JournalLostError, and then has touched nothing.
        """
        if self._driver.vms() and not self._journal.written:
            raise JournalLostError(
                f"there are VMs in {self._data_dir}, and no journal that says whether they may run here",
                next_command=f"restore journal.db of that folder, or move {self._data_dir / 'vms'} away",
            )
        await self._journal.open()
        await self._orphans.clear()
        await self._backups.recover()  # before anybody can ask for the next one
        self._register()
        await self._server.start_on(listener)
        self._incoming.host = listener.getsockname()[0]
        self._outgoing.address = self._incoming.address = advertise or self._server.address
        await self._incoming.recover()
        await self._outgoing.recover()
        await self._checkpoints.recover()
        await self._restores.recover()
        self._takeovers.recover()
        self._looking = asyncio.create_task(self._look())
        return self

    async def stop(self) -> None:
        """Leave: VMs run on, what is under way is taken up at the next start."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._server.close()
        await self._takeovers.close()
        await self._checkpoints.close()
        await self._repositories.close()
        await self._restores.close()
        await self._backups.close()
        await self._outgoing.close()
        await self._incoming.close()
        await self._arrivals.close()
        await self._hooks.close()
        await self._driver.detach()
        await self._journal.close()

    async def describe(self, _peer: SpiffeId, _request: Nothing) -> NodeDescription:
        """Its word on itself."""
        return NodeDescription(
            self._node_id,
            await self._capabilities(),
            tuple(await self._vms.looks()),
            tuple([await self._report(attempt.migration_id) for attempt in self._journal.attempts()]),
            tuple(self._orphans.found),
            self._arrivals.probes(),
        )

    async def _capabilities(self) -> HostCapabilities:
        """What the cache would give up counts as free."""
        here = await self._driver.capabilities()
        free = here.disk_free_bytes + await self._cache.evictable_bytes()
        return msgspec.structs.replace(here, disk_free_bytes=free)

    async def create(self, peer: SpiffeId, request: VmCreate) -> VmReport:
        """Make a VM's disks and own it."""
        await self._cache.make_room(_disk_bytes(request.spec), keep=request.vm_id)
        return await self._vms.create(peer, request)

    async def prepare(self, peer: SpiffeId, order: IncomingOrder) -> IncomingReady:
        """Be ready for a VM that comes."""
        await self._cache.make_room(_disk_bytes(order.spec), keep=order.vm_id)
        return await self._incoming.prepare(peer, order)

    async def watch(self, _peer: SpiffeId, _request: Nothing) -> AsyncIterator[NodeEvent]:
        """What changes, as it changes."""
        async for event in self._events.watch():
            yield event

    async def trust(self, _peer: SpiffeId, update: TrustUpdate) -> Nothing:
        """The whole trust bundle as it is now."""
        own = self._credentials.identity.trust_domain
        for domain in set(self._credentials.trusted) - set(update.trust) - {own}:
            self._credentials.distrust(domain)
        for domain, pem in update.trust.items():
            if domain != own:
                self._credentials.trust(domain, pem)
        await asyncio.to_thread(self._credentials.save, self._credentials_dir)
        return Nothing()

    async def probe(self, _peer: SpiffeId, request: ProbeRequest) -> LinkSample:
        """How fast the way to another node is; a bound that is too low to be tried is believed. Raises WireError."""
        bound = request.bandwidth_bytes_s
        channel = await open_channel(
            request.address,
            self._credentials,
            SpiffeId.parse(request.node),
            new_id(SESSION),
            streams=request.streams,
            rate_bytes_s=bound,
        )
        async with channel:
            rate = bound if bound and bound < SLOWEST_BYTES_S else await probe(channel)
            return LinkSample(rate, channel.rtt_ms)

    async def _receive(self, peer: SpiffeId, session: str, channel: ParallelChannel) -> None:
        """A channel of another node: a migration that comes, or a look at the link."""
        if session.startswith(SESSION) and peer.kind == "node":
            await answer_probe(channel)
        else:
            await self._incoming.receive(peer, session, channel)

    async def report(self, _peer: SpiffeId, ref: MigrationRef) -> MigrationReport:
        """Its word on one migration."""
        return await self._report(ref.migration_id)

    async def _report(self, migration_id: str) -> MigrationReport:
        attempt = self._journal.attempt(migration_id)  # type: ignore[arg-type]  # an id from outside
        side = self._outgoing if attempt.role is Role.SOURCE else self._incoming
        return await side.report(attempt.migration_id)

    async def _look(self) -> None:
        """Tell of VMs that changed by themselves: a guest that shut down, a QEMU that died."""
        seen: dict[VmId, VmReport] = {}
        while True:
            try:
                for report in await self._vms.looks():
                    found = msgspec.structs.replace(report, sequence=0)
                    if seen.get(report.vm_id) != found:
                        self._events.publish(NodeEvent(vm=report))
                    seen[report.vm_id] = found
            except HypervisorError as error:  # a QEMU that dies while it is asked: the next look sees it gone
                log.info("look_failed", cause=error.cause)
            await self._clock.sleep(LOOK_EVERY_S)

    def _register(self) -> None:
        """Who may call what: the own controller everything, nodes the hand-over."""
        server, own = self._server, self._credentials.identity.trust_domain

        def controller(peer: SpiffeId) -> bool:
            return peer == SpiffeId(own, "controller")

        def node(peer: SpiffeId) -> bool:
            return peer.kind == "node"

        server.method("node.describe", Nothing, self.describe, allow=controller)
        server.stream("node.watch", Nothing, self.watch, allow=controller)
        server.method("node.trust", TrustUpdate, self.trust, allow=controller)
        server.method("vm.create", VmCreate, self.create, allow=controller)
        server.method("vm.start", VmRef, self._vms.start, allow=controller)
        server.method("vm.pause", VmRef, self._vms.pause, allow=controller)
        server.method("vm.resume", VmRef, self._vms.resume, allow=controller)
        server.method("vm.stop", VmStop, self._vms.stop, allow=controller)
        server.method("vm.resize", VmResize, self._vms.resize, allow=controller)
        server.method("vm.delete", VmRef, self._vms.delete, allow=controller)
        server.method("vm.report", VmRef, self._vms.report, allow=controller)
        server.method("vm.take_over", TakeOver, self._takeovers.take_over, allow=controller)
        server.duplex("vm.console", VmRef, self._vms.console, allow=controller)
        self._register_stores(controller)
        server.method("image.presence", ImageRef, self._images.presence, allow=controller)
        server.method("image.write", ImageWrite, self._images.write, allow=controller)
        server.method("image.delete", ImageRef, self._images.delete, allow=controller)
        server.method("migration.survey", SurveyRequest, self._surveys.survey, allow=controller)
        server.method("migration.holdings", HoldingsRequest, self._surveys.holdings, allow=controller)
        server.method("migration.probe", ProbeRequest, self.probe, allow=controller)
        server.method("migration.open", OpenRequest, self._outgoing.open, allow=controller)
        server.method("migration.run", OutgoingOrder, self._outgoing.run, allow=controller)
        server.method("migration.cancel", MigrationRef, self._outgoing.cancel, allow=controller)
        server.method("migration.release", MigrationRef, self._outgoing.release, allow=controller)
        server.method("migration.look", MigrationRef, self._recalls.look, allow=controller)
        server.method("migration.recall", MigrationRef, self._recalls.recall, allow=controller)
        server.method("migration.prepare", IncomingOrder, self.prepare, allow=controller)
        server.method("migration.abandon", MigrationRef, self._incoming.abandon, allow=controller)
        server.method("migration.report", MigrationRef, self.report, allow=controller)
        server.method("handover.ask", HandoverQuestion, self._outgoing.ask, allow=node)
        server.method("handover.commit", HandoverQuestion, self._incoming.commit, allow=node)
        server.method("handover.look", HandoverQuestion, self._arrivals.look, allow=node)
        server.method("handover.give_back", HandoverQuestion, self._arrivals.give_back, allow=node)
        server.method("handover.stand_down", HandoverQuestion, self._takeovers.stand_down, allow=node)
        server.channels(self._receive)

    def _register_stores(self, controller: Callable[[SpiffeId], bool]) -> None:
        """What is kept of VMs, at this node and elsewhere."""
        server = self._server
        server.method("checkpoint.create", CheckpointOrder, self._checkpoints.create, allow=controller)
        server.method("checkpoint.report", CheckpointRef, self._checkpoints.report, allow=controller)
        server.method("checkpoint.delete", CheckpointRef, self._checkpoints.delete, allow=controller)
        server.method("checkpoint.restore", RestoreOrder, self._restores.restore, allow=controller)
        server.method("checkpoint.restore_report", RestoreRef, self._restores.report, allow=controller)
        server.method("checkpoint.restore_cancel", RestoreRef, self._restores.cancel, allow=controller)
        server.method("repository.create", RepositoryCreate, self._repositories.create, allow=controller)
        server.method("repository.check", RepositoryCheck, self._repositories.check, allow=controller)
        server.method("repository.prune", RepositoryPrune, self._repositories.prune, allow=controller)
        server.method("repository.end", RepositoryWorkRef, self._repositories.end, allow=controller)
        server.method("repository.unmake", RepositoryUnmake, self._repositories.unmake, allow=controller)
        server.method("repository.stats", RepositoryPlace, self._repositories.stats, allow=controller)
        server.method("backup.create", BackupOrder, self._backups.create, allow=controller)
        server.method("backup.report", BackupRef, self._backups.report, allow=controller)
        server.method("backup.cancel", BackupRef, self._backups.cancel, allow=controller)
        server.method("backup.delete", BackupRemoval, self._backups.delete, allow=controller)
        server.method("backup.restore", BackupRestoreOrder, self._disk_restores.restore, allow=controller)


def _disk_bytes(spec: VmSpec) -> int:
    return sum(disk.size_bytes for disk in spec.disks)


def _range(ports: str) -> tuple[int, int]:
    first, _, last = ports.partition("-")
    return int(first), int(last or first)

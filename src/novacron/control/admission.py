"""Migrations that come to this cluster: whether they may, to which node, and their record here."""

from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from novacron.control import series, specs
from novacron.control.errors import MigrationRefusedError, NodeRefusedError
from novacron.control.kinds import MIGRATIONS, NODES, PEERS, VMS
from novacron.control.mirror import INCOMING, follow_migration, noted
from novacron.control.nodes import Nodes
from novacron.control.unverified import DIED, ROLLED_BACK, UNVERIFIED
from novacron.control.vms import Vms
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError, RemoteError
from novacron.core.ids import MigrationId, VmId
from novacron.database.database import Database, Transaction
from novacron.database.errors import NameTakenError
from novacron.migration.errors import JournalError
from novacron.protocol.migration import (
    IncomingOrder,
    IncomingReady,
    MigrationRef,
    MigrationReport,
)
from novacron.protocol.node import Nothing, VmRef, VmReport
from novacron.protocol.plan import Holdings, HoldingsRequest, Outlook, OutlookRequest
from novacron.protocol.resources import Cluster, Migration, Node, Problem
from novacron.wire.identity import SpiffeId

REFUSALS: Final = frozenset({"no_room", "bridge", "hook_failed", "probe_unknown"})  # that are one node's
GONE_BACK: Final = frozenset({"reclaimed", "taken_over"})
log = structlog.get_logger()


class Admission:
    """The destination's side, as a source's controller sees it: of this cluster or of a peer."""

    def __init__(self, database: Database, nodes: Nodes, vms: Vms, cluster: Cluster, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._vms = vms
        self._cluster = cluster
        self._clock = clock

    async def admit(self, order: IncomingOrder) -> IncomingReady:
        """Make a node ready; everything that can be refused is refused here, while the guest runs at its source.

        Raises NameTakenError, NoRoomError, MigrationRefusedError, NodeUnreachableError, RemoteError, and
        NodeRefusedError when the node that was chosen here cannot, and another one may.
        """
        known = await self._database.read(lambda tx: self._check(tx, order))
        busy = await self._database.read(_busy)
        refused = await self._database.read(lambda tx: _nodes_of(tx, order.refused))
        blind = await self._database.read(lambda tx: _without(tx, order.check.probe))
        node = known or await self._vms.place(order.spec, order.node, avoid=busy | refused | blind)
        self._identity(node, order.spec.name, order.source_node)
        images = await self._database.read(lambda tx: specs.images_of(tx, order.spec, disks=False))
        await self._vms.supply(node.id, images)
        await self._database.write(lambda tx: self._note(tx, order, node))
        try:
            return await self._nodes.call(node.id, "migration.prepare", order, IncomingReady)
        except RemoteError as error:
            if error.code in REFUSALS and not order.node and await self._another(order, refused | {node.name}):
                raise NodeRefusedError(f"node {node.name} cannot take it: {error.cause}") from error
            raise

    async def _another(self, order: IncomingOrder, refused: frozenset[str]) -> bool:
        """Whether a node that has not refused may take it."""
        try:
            return (await self._vms.place(order.spec, avoid=refused)).name not in refused
        except NovaCronError:
            return False

    async def outlook(self, request: OutlookRequest) -> Outlook:
        """Where such a VM would go, and what of it lies there; raises what ``admit`` would, and touches nothing."""
        await self._database.read(lambda tx: self._check_name(tx, request.vm_id, request.spec.name))
        node = await self._vms.place(request.spec, request.node)
        identity = self._identity(node, request.spec.name, request.source_node)
        question = HoldingsRequest(request.vm_id, request.spec, request.known_state)
        holdings = await self._nodes.call(node.id, "migration.holdings", question, Holdings)
        return Outlook(node.name, identity, node.address, holdings.held, node.capabilities.direct)

    async def dismiss(self, ref: MigrationRef) -> Nothing:
        """Drop what was prepared. A node that is ready already asks the source's node itself, and is told the same."""
        found = await self._database.read(lambda tx: MIGRATIONS.find(tx, ref.migration_id))
        if found is None:
            return Nothing()
        migration = found.value
        if migration.target_node:
            node = (await self._database.read(lambda tx: NODES.get(tx, migration.target_node))).value
            try:
                await self._nodes.call(node.id, "migration.abandon", ref, Nothing)
            except RemoteError as error:
                if error.code != JournalError.code:
                    raise
        problem = Problem("migration_dismissed", f"{migration.source_cluster} gave it up: the VM runs on there")
        await self._end(ref.migration_id, "failed", problem)
        return Nothing()

    async def progress(self, report: MigrationReport) -> Nothing:
        """The source's word on how far it is; ``settled`` ends it well, with the VM in this cluster's records.

        ``reclaimed``, after that: it died here, and goes on at its source.
        """
        if report.state in GONE_BACK:
            await self._database.write(lambda tx: _gone_back(tx, report))
        if report.state == "settled":
            await self._see_it_here(report)

        def follow(tx: Transaction) -> None:
            known = MIGRATIONS.find(tx, report.migration_id)
            if known is None or known.value.direction != INCOMING or known.value.outcome:
                return
            followed = noted(follow_migration(known.value, report), report)
            if report.state == "settled":
                well = report.summary is None or report.summary.verified
                outcome = "succeeded" if well else UNVERIFIED
                followed = msgspec.structs.replace(followed, phase="done", outcome=outcome, ended_at=self._clock.now())
            series.follow(tx, known.value, followed, self._clock.now())

        await self._database.write(follow)
        return Nothing()

    async def _see_it_here(self, report: MigrationReport) -> None:
        """Before the source forgets the VM it is known here; a node that is silent now says it when it is back."""
        found = await self._database.read(lambda tx: MIGRATIONS.find(tx, report.migration_id))
        if found is None or found.value.direction != INCOMING:
            return
        node = (await self._database.read(lambda tx: NODES.get(tx, found.value.target_node))).value
        try:
            arrived = await self._nodes.call(node.id, "vm.report", VmRef(report.vm_id), VmReport)
        except NovaCronError as error:
            log.info("arrival_not_seen", migration=report.migration_id, cause=error.cause)
        else:
            await self._nodes.note(arrived, node.id)

    def _check(self, tx: Transaction, order: IncomingOrder) -> Node | None:
        """Refuse what cannot be; the node of an attempt that was admitted before."""
        self._check_name(tx, order.vm_id, order.spec.name)
        found = MIGRATIONS.find(tx, order.migration_id)
        if found is None or not found.value.target_node:
            return None
        return NODES.get(tx, found.value.target_node).value

    def _check_name(self, tx: Transaction, vm_id: VmId, name: str) -> None:
        vm = VMS.find(tx, name)
        if vm is not None and vm.value.id != vm_id:
            raise NameTakenError(
                f"cluster {self._cluster.name} has a VM called {name}", next_command="novacron vm list (there)"
            )

    def _identity(self, node: Node, vm_name: str, source_node: str) -> str:
        """Who the node for a VM is; raises MigrationRefusedError when it has that VM already."""
        identity = str(SpiffeId(self._cluster.id, "node", node.id))
        if identity == source_node:
            raise MigrationRefusedError(
                f"VM {vm_name} is on node {node.name} already", next_command="novacron node list"
            )
        return identity

    def _note(self, tx: Transaction, order: IncomingOrder, node: Node) -> None:
        """The record of a migration that comes from a peer; one within the cluster has its record already."""
        known = MIGRATIONS.find(tx, order.migration_id)
        if known is not None:
            MIGRATIONS.put(tx, msgspec.structs.replace(known.value, target_node=node.name), named=False)
            return
        domain = SpiffeId.parse(order.source_node).trust_domain
        peer = PEERS.find(tx, domain)
        migration = Migration(
            id=order.migration_id,
            vm_id=order.vm_id,
            vm_name=order.spec.name,
            source_cluster=peer.value.name if peer else domain,
            target_cluster=self._cluster.name,
            direction=INCOMING,
            phase="prepare",
            epoch=order.epoch,
            target_node=node.name,
            started_at=self._clock.now(),
            rolls_back=order.rolls_back,
        )
        MIGRATIONS.put(tx, migration, named=False)

    async def _end(self, migration_id: MigrationId, outcome: str, problem: Problem) -> None:
        def end(tx: Transaction) -> None:
            known = MIGRATIONS.find(tx, migration_id)
            if known is not None and known.value.direction == INCOMING and not known.value.outcome:
                ended = msgspec.structs.replace(
                    known.value, outcome=outcome, problem=problem, ended_at=self._clock.now()
                )
                MIGRATIONS.put(tx, ended, named=False)

        await self._database.write(end)


def _nodes_of(tx: Transaction, attempts: Iterable[MigrationId]) -> frozenset[str]:
    """Names of the nodes that attempts were to go to."""
    found = (MIGRATIONS.find(tx, attempt) for attempt in attempts)
    return frozenset(record.value.target_node for record in found if record is not None)


def _without(tx: Transaction, probe: str) -> frozenset[str]:
    """Names of the nodes that did not have a probe when they were last asked."""
    return frozenset(node.name for node in NODES.every(tx) if probe and probe not in node.probes)


def _gone_back(tx: Transaction, report: MigrationReport) -> None:
    """A VM that had come from a peer is none of this cluster's any more, unless it has come again since."""
    known = MIGRATIONS.find(tx, report.migration_id)
    if known is None or known.value.direction != INCOMING or known.value.outcome == ROLLED_BACK:
        return
    move = known.value
    problem = Problem(DIED, f"VM {move.vm_name} died here, and goes on in {move.source_cluster}")
    MIGRATIONS.put(tx, msgspec.structs.replace(move, outcome=ROLLED_BACK, problem=problem), named=False)
    vm = VMS.find(tx, report.vm_id)
    if vm is not None and vm.value.owner_epoch <= report.epoch:
        VMS.delete(tx, report.vm_id)


def _busy(tx: Transaction) -> frozenset[str]:
    """Nodes that a VM is on its way to: those that come together are spread."""
    return frozenset(move.target_node for move in MIGRATIONS.every(tx) if not move.outcome and move.target_node)

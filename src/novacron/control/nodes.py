"""The nodes of this cluster: how they join, and the connection to each that tells what it runs."""

import asyncio
import contextlib
from contextlib import aclosing
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec import Struct

from novacron.control import mirror, series, tokens
from novacron.control.errors import NodeUnreachableError
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.control.trust import TrustBundle
from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError, RefusedError
from novacron.core.ids import ClusterId, NodeId, VmId, check_name, new_id
from novacron.database.database import Database, Transaction
from novacron.federation import invitation
from novacron.federation.invitation import Invite
from novacron.protocol.migration import MigrationReport
from novacron.protocol.node import (
    NodeAnnounce,
    NodeDescription,
    NodeEvent,
    NodeJoin,
    NodeJoined,
    NodeRenew,
    Nothing,
    TrustUpdate,
    VmReport,
)
from novacron.protocol.resources import Cluster, Node, Vm
from novacron.protocol.rest import Invitation
from novacron.wire.client import Client
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

RETRY_S: Final = 1.0
A = TypeVar("A", bound=Struct)
log = structlog.get_logger()


class Nodes:
    """Joins nodes and speaks with them. Use as an async context manager."""

    def __init__(self, database: Database, trust: TrustBundle, cluster: Cluster, clock: Clock) -> None:
        self._database = database
        self._trust = trust
        self._cluster = cluster
        self._clock = clock
        self._clients: dict[NodeId, Client] = {}
        self._watching: dict[NodeId, asyncio.Task[None]] = {}
        self._heard: dict[NodeId, dict[VmId, VmReport]] = {}

    async def start(self) -> None:
        """Watch every node that has joined."""
        for node in await self._database.read(lambda tx: list(NODES.every(tx))):
            self._watch(node)

    async def close(self) -> None:
        """End every connection."""
        for task in self._watching.values():
            task.cancel()
        await asyncio.gather(*self._watching.values(), return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    async def invite(self, ttl_s: int) -> Invitation:
        """An invitation for one node."""
        secret, now = invitation.new_secret(), self._clock.now()
        expires_at = now + ttl_s
        await self._database.write(lambda tx: tokens.issue(tx, "node", secret, now=now, expires_at=expires_at))
        cluster = self._cluster
        text = invitation.write(
            Invite("node", cluster.id, cluster.name, cluster.address, self._trust.root_pem, secret, expires_at)
        )
        return Invitation(text, expires_at)

    async def join(self, request: NodeJoin) -> NodeJoined:
        """A new node shows its token and is given its certificate."""
        check_name(request.name, "node")
        now = self._clock.now()

        def admit(tx: Transaction) -> Node:
            tokens.redeem(tx, "node", request.token, f"node/{request.name}", now)
            known = NODES.find(tx, request.name)
            node_id = known.value.id if known else NodeId(new_id("node"))
            identity = SpiffeId(self._cluster.id, "node", node_id)
            drain = known.value.drain if known else ""
            node = Node(node_id, request.name, request.address, str(identity), seen_at=now, drain=drain)
            NODES.put(tx, node)
            return node

        node = await self._database.write(admit)
        certificate = self._trust.issue(request.csr_pem, SpiffeId.parse(node.spiffe_id))
        return NodeJoined(node.id, ClusterId(self._cluster.id), self._cluster.name, certificate, self._trust.roots())

    async def renew(self, peer: SpiffeId, request: NodeRenew) -> NodeJoined:
        """A known node is given its next certificate."""
        node = await self._database.read(lambda tx: NODES.find(tx, peer.name))
        if node is None:
            raise RefusedError(f"node {peer.name} was removed", next_command="novacron node invite")
        certificate = self._trust.issue(request.csr_pem, peer)
        return NodeJoined(node.value.id, self._cluster.id, self._cluster.name, certificate, self._trust.roots())

    async def announce(self, peer: SpiffeId, message: NodeAnnounce) -> Nothing:
        """A node has started: look at it anew, where it serves now."""

        def move(tx: Transaction) -> Node:
            node = msgspec.structs.replace(NODES.get(tx, peer.name).value, address=message.address)
            NODES.put(tx, node)
            return node

        self._watch(await self._database.write(move))
        return Nothing()

    async def forget(self, node_id: NodeId) -> None:
        """Let go of a node that was removed."""
        watching, client = self._watching.pop(node_id, None), self._clients.pop(node_id, None)
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if client is not None:
            await client.close()
        self._heard.pop(node_id, None)

    async def call(self, node_id: NodeId, method: str, request: Struct, answer: type[A]) -> A:
        """Ask a node; raises NodeUnreachableError, RemoteError."""
        client = await self.client(node_id)
        try:
            return await client.call(method, request, answer)
        except WireError as error:
            name = await self._name(node_id)
            raise NodeUnreachableError(
                f"node {name} ({client.address}) does not answer: {error.cause}", next_command="novacron node list"
            ) from error

    async def client(self, node_id: NodeId) -> Client:
        """The connection to a node."""
        if node_id not in self._clients:
            node = (await self._database.read(lambda tx: NODES.get(tx, node_id))).value
            self._clients[node_id] = Client.known(
                node.address, self._trust.credentials, expect=SpiffeId.parse(node.spiffe_id)
            )
        return self._clients[node_id]

    async def describe(self, node_id: NodeId) -> NodeDescription:
        """A node's word on itself, its room as it is now."""
        return await self.call(node_id, "node.describe", Nothing(), NodeDescription)

    async def until_ready(self, node_id: NodeId) -> None:
        """Return once the node is watched and has described itself."""
        while True:
            changed = asyncio.ensure_future(self._database.changed())
            await asyncio.sleep(0)  # the wait stands before the look
            found = await self._database.read(lambda tx: NODES.find(tx, node_id))
            if found is not None and found.value.state == "ready":
                changed.cancel()
                return
            await changed

    async def push_trust(self) -> None:
        """Tell every node whom to trust; one that does not answer is told when it is back."""
        for node in await self._database.read(lambda tx: list(NODES.every(tx))):
            with contextlib.suppress(NovaCronError):
                await self.call(node.id, "node.trust", TrustUpdate(self._trust.roots()), Nothing)

    async def note(self, report: VmReport, node_id: NodeId) -> None:
        """Mirror a node's word on a VM."""
        now = self._clock.now()

        def follow(tx: Transaction) -> None:
            found = VMS.find(tx, report.vm_id)
            known = found.value if found else None
            followed = mirror.follow_vm(known, self.newest(report, node_id), node_id, now)
            if followed is None:
                VMS.delete(tx, report.vm_id)
            elif followed != known:
                _put_vm(tx, followed)

        await self._database.write(follow)

    def newest(self, report: VmReport, node_id: NodeId) -> VmReport:
        """The latest word of a node on a VM: this one, or one that overtook it. Ask in a write: they keep order."""
        heard = self._heard.setdefault(node_id, {})
        known = heard.get(report.vm_id)
        if known is None or known.sequence <= report.sequence:
            known = heard[report.vm_id] = report
        return known

    async def _name(self, node_id: NodeId) -> str:
        found = await self._database.read(lambda tx: NODES.find(tx, node_id))
        return found.value.name if found else node_id

    def _watch(self, node: Node) -> None:
        """Watch a node, where it serves now; calls to the same address go on (somebody may be at a console)."""
        old, client = self._watching.pop(node.id, None), self._clients.get(node.id)
        moved = self._clients.pop(node.id) if client is not None and client.address != node.address else None
        if old is not None:
            old.cancel()
        self._watching[node.id] = asyncio.create_task(self._keep_watching(node.id, moved))

    async def _keep_watching(self, node_id: NodeId, before: Client | None) -> None:
        """One watch after the other, for ever."""
        if before is not None:
            await before.close()
        while True:
            try:
                await self._watch_once(node_id)
                log.info("node_watch_ended", node=node_id)
            except NovaCronError as error:
                log.info("node_unreachable", node=node_id, cause=error.cause)
                await self._mark(node_id, "unreachable")
            except Exception:
                log.exception("node_watch_failed", node=node_id)
            await self._clock.sleep(RETRY_S)

    async def _watch_once(self, node_id: NodeId) -> None:
        """Once the watch stands, everything is looked at; from then on nothing is missed."""
        client = await self.client(node_id)
        self._heard.pop(node_id, None)  # it may have started again, and count from one
        async with aclosing(client.stream("node.watch", Nothing(), NodeEvent)) as events:
            async for event in events:
                if event.vm is not None:
                    await self.note(event.vm, node_id)
                elif event.migration is not None:
                    await self._note_migration(event.migration)
                else:
                    await self._look(node_id)

    async def _look(self, node_id: NodeId) -> None:
        """Everything that a node knows, at once."""
        await self.call(node_id, "node.trust", TrustUpdate(self._trust.roots()), Nothing)
        description = await self.describe(node_id)
        for report in description.vms:
            await self.note(report, node_id)
        here = {report.vm_id for report in description.vms}
        now = self._clock.now()

        def settle(tx: Transaction) -> None:
            node = NODES.get(tx, node_id).value
            seen = msgspec.structs.replace(
                node,
                state="ready",
                seen_at=now,
                capabilities=description.capabilities,
                orphans=description.orphans,
                probes=description.probes,
            )
            NODES.put(tx, seen)
            for vm in list(VMS.every(tx)):
                if vm.node_id == node_id and vm.id not in here and vm.state != mirror.CREATING:
                    VMS.put(tx, mirror.missing(vm))
            for move in description.migrations:
                _follow(tx, move, now)

        await self._database.write(settle)

    async def _note_migration(self, report: MigrationReport) -> None:
        now = self._clock.now()
        await self._database.write(lambda tx: _follow(tx, report, now))

    async def _mark(self, node_id: NodeId, state: str) -> None:
        def mark(tx: Transaction) -> None:
            node = NODES.find(tx, node_id)
            if node is not None and node.value.state != state:
                NODES.put(tx, msgspec.structs.replace(node.value, state=state))

        await self._database.write(mark)


def _follow(tx: Transaction, report: MigrationReport, now: float) -> None:
    """The record of a migration, after the word of a node that is one of its ends."""
    found = MIGRATIONS.find(tx, report.migration_id)
    if found is None:
        return
    known = mirror.noted(found.value, report)
    if report.role == "destination":
        followed = mirror.follow_arrival(known, report, now)
    else:
        followed = mirror.follow_migration(known, report) if known.direction == mirror.OUTGOING else known
    series.follow(tx, found.value, followed, now)


def _put_vm(tx: Transaction, vm: Vm) -> None:
    """A VM that came from elsewhere may bear a name that is taken: it is shown under a longer one."""
    other = VMS.find(tx, vm.name)
    if other is not None and other.value.id != vm.id:
        vm = msgspec.structs.replace(vm, name=f"{vm.name[:50]}-{vm.id[-8:]}")
    VMS.put(tx, vm)

"""Other clusters: how they join, and calls to them."""

from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec import Struct

from novacron.control import tokens
from novacron.control.errors import PeerUnknownError, PeerUnreachableError
from novacron.control.kinds import PEERS
from novacron.control.nodes import Nodes
from novacron.control.trust import TrustBundle
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError, InvalidInputError, NovaCronError
from novacron.core.ids import ClusterId, check_name
from novacron.database.database import Database, Transaction
from novacron.federation import invitation, peering
from novacron.federation.errors import JoinUnfinishedError
from novacron.federation.invitation import Invite
from novacron.protocol.node import Nothing
from novacron.protocol.peer import PeerIdentity, PeerJoin, PeerSummary
from novacron.protocol.resources import Cluster, PeerCluster
from novacron.protocol.rest import Invitation
from novacron.wire.client import Client
from novacron.wire.errors import WireError
from novacron.wire.identity import SpiffeId

LOOK_EVERY_S: Final = 5.0
SEEN_EVERY_S: Final = 60.0  # how often a peer that answers is noted: each note is a change that others watch
JOINING, JOINED, UNREACHABLE = "joining", "joined", "unreachable"
A = TypeVar("A", bound=Struct)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where VMs go: a cluster, perhaps one node of it."""

    cluster_id: ClusterId
    cluster: str
    node: str = ""


class Peers:
    """The clusters that this one trusts."""

    def __init__(self, database: Database, trust: TrustBundle, nodes: Nodes, cluster: Cluster, clock: Clock) -> None:
        self._database = database
        self._trust = trust
        self._nodes = nodes
        self._cluster = cluster
        self._clock = clock
        self._clients: dict[ClusterId, Client] = {}

    async def close(self) -> None:
        """End every connection."""
        for client in self._clients.values():
            await client.close()

    async def invite(self, ttl_s: int) -> Invitation:
        """An invitation for one cluster."""
        secret, now = invitation.new_secret(), self._clock.now()
        expires_at = now + ttl_s
        await self._database.write(lambda tx: tokens.issue(tx, "peer", secret, now=now, expires_at=expires_at))
        own = self._own()
        invite = Invite("peer", own.cluster_id, own.name, own.address, own.root_pem, secret, expires_at)
        return Invitation(invitation.write(invite), expires_at)

    async def join(self, text: str) -> PeerCluster:
        """Join the cluster that invites; a join that breaks off half-way goes on by itself."""
        invite = invitation.read(text, "peer", self._clock.now())
        if invite.cluster_id == self._cluster.id:
            raise InvalidInputError("a cluster cannot join itself", next_command="novacron federation list")
        await self._refuse_second_of(invite.cluster_name, invite.cluster_id)
        try:
            peer = await peering.introduce(invite, self._own(), self._clock)
        except WireError as error:
            raise PeerUnreachableError(
                f"cluster {invite.cluster_name} ({invite.address}) does not answer: {error.cause}",
                next_command="novacron federation join (again, with the same invitation)",
            ) from error
        joining = await self._remember(peer, JOINING)
        try:
            return await self._confirm(joining)
        except NovaCronError as error:
            raise JoinUnfinishedError(
                f"{peer.name} has let this cluster in, and has not confirmed yet: {error.cause}",
                next_command="novacron federation list",
            ) from error

    async def welcome(self, request: PeerJoin) -> PeerIdentity:
        """At the inviter: a cluster shows its token."""
        who, now = request.identity, self._clock.now()
        check_name(who.name, "cluster")
        await self._refuse_second_of(who.name, who.cluster_id)
        await self._database.write(lambda tx: tokens.redeem(tx, "peer", request.token, who.cluster_id, now))
        await self._remember(who, JOINING)
        return self._own()

    async def confirmed(self, caller: SpiffeId) -> PeerIdentity:
        """At the inviter: the new peer has proved itself by its own certificate."""
        await self._mark(ClusterId(caller.trust_domain), JOINED)
        return self._own()

    async def get(self, reference: str) -> PeerCluster:
        """A peer by name or id; raises PeerUnknownError."""
        found = await self._database.read(lambda tx: PEERS.find(tx, reference))
        if found is None:
            raise PeerUnknownError(
                f"cluster {self._cluster.name} knows no cluster {reference!r}", next_command="novacron federation list"
            )
        return found.value

    async def destination(self, to: str) -> Destination:
        """Where ``cluster``, ``cluster/node`` or ``/node`` is; raises PeerUnknownError."""
        cluster, _, node = to.partition("/")
        if cluster in {"", self._cluster.name, self._cluster.id}:
            return Destination(self._cluster.id, self._cluster.name, node)
        peer = await self.get(cluster)
        return Destination(peer.id, peer.name, node)

    async def call(self, peer: PeerCluster, method: str, request: Struct, answer: type[A]) -> A:
        """Ask a peer's controller; raises PeerUnreachableError, RemoteError."""
        client = self._clients.get(peer.id)
        if client is None or client.address != peer.address:
            expect = SpiffeId(peer.id, "controller")
            client = self._clients[peer.id] = Client.known(peer.address, self._trust.credentials, expect=expect)
        try:
            return await client.call(method, request, answer)
        except WireError as error:
            raise PeerUnreachableError(
                f"cluster {peer.name} ({peer.address}) does not answer: {error.cause}",
                next_command="novacron federation list",
            ) from error

    async def keep_looking(self) -> None:
        """Finish joins that broke off, and notice peers that went away or came back, for ever."""
        while True:
            for peer in await self._database.read(lambda tx: list(PEERS.every(tx))):
                await self._look(peer)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self, peer: PeerCluster) -> None:
        try:
            if peer.state == JOINING:
                await self._confirm(peer)
            else:
                await self.call(peer, "peer.summary", Nothing(), PeerSummary)
                await self._mark(peer.id, JOINED)
        except NovaCronError as error:
            log.info("peer_silent", peer=peer.name, cause=error.cause)
            if peer.state == JOINED:
                await self._mark(peer.id, UNREACHABLE)

    async def _confirm(self, peer: PeerCluster) -> PeerCluster:
        """The joiner's second step; at the inviter it waits for that step, and sees the same."""
        client = Client.known(peer.address, self._trust.credentials, expect=SpiffeId(peer.id, "controller"))
        async with client:
            await peering.confirm(client)
        return await self._mark(peer.id, JOINED)

    async def _remember(self, who: PeerIdentity, state: str) -> PeerCluster:
        now = self._clock.now()

        def put(tx: Transaction) -> PeerCluster:
            known = PEERS.find(tx, who.cluster_id)
            joined = known.value.joined_at if known else now
            kept = state if known is None else known.value.state
            peer = PeerCluster(who.cluster_id, who.name, who.address, who.root_pem, kept, joined, now)
            PEERS.put(tx, peer)
            return peer

        peer = await self._database.write(put)
        await self._trust.trust(who.cluster_id, who.root_pem)
        await self._nodes.push_trust()
        return peer

    async def _mark(self, cluster_id: ClusterId, state: str) -> PeerCluster:
        now = self._clock.now()

        def mark(tx: Transaction) -> PeerCluster:
            peer = PEERS.get(tx, cluster_id).value
            if peer.state != state or now - peer.seen_at > SEEN_EVERY_S:
                seen_at = peer.seen_at if state == UNREACHABLE else now
                peer = msgspec.structs.replace(peer, state=state, seen_at=seen_at)
                PEERS.put(tx, peer)
            return peer

        return await self._database.write(mark)

    async def _refuse_second_of(self, name: str, cluster_id: ClusterId) -> None:
        """Two clusters of one name could not be told apart by people."""
        found = await self._database.read(lambda tx: PEERS.find(tx, name))
        if name == self._cluster.name or (found is not None and found.value.id != cluster_id):
            raise ConflictError(f"there is a cluster called {name} already", next_command="novacron federation list")

    def _own(self) -> PeerIdentity:
        return PeerIdentity(self._cluster.id, self._cluster.name, self._cluster.address, self._trust.root_pem)

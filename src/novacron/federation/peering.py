"""The conversation by which one cluster joins another.

1. The joiner calls under no name, and believes only the root that the invitation pins. It shows the token and its own
   identity, and is told the inviter's. The inviter now trusts the joiner, as one that has not confirmed yet.
2. The joiner, which now trusts the inviter, calls again under its own name. Both sides have then seen the other prove
   itself, and both write ``joined``.

Each step may be repeated: a lost answer is asked for again.
"""

from cryptography import x509

from novacron.core.clock import Clock
from novacron.federation.errors import PeerMismatchError
from novacron.federation.invitation import Invite
from novacron.protocol.node import NodeJoin, NodeJoined, Nothing
from novacron.protocol.peer import PeerIdentity, PeerJoin
from novacron.wire.authority import identity_in
from novacron.wire.client import Client
from novacron.wire.identity import SpiffeId


def inviter(invite: Invite, clock: Clock) -> Client:
    """Calls under no name to the cluster that invites, which must prove itself by the pinned root."""
    root = x509.load_pem_x509_certificate(invite.root_pem.encode())

    def verify(certificate: bytes) -> SpiffeId:
        return identity_in(x509.load_der_x509_certificate(certificate), {invite.cluster_id: root}, clock.now())

    return Client.anonymous(invite.address, invite.cluster_id, invite.root_pem, verify)


async def introduce(invite: Invite, own: PeerIdentity, clock: Clock) -> PeerIdentity:
    """Step 1 at the joiner: whom the inviter says that it is. Raises RemoteError, PeerMismatchError, WireError."""
    async with inviter(invite, clock) as client:
        peer = await client.call("peer.join", PeerJoin(invite.secret, own), PeerIdentity)
    if (peer.cluster_id, peer.root_pem.strip()) != (invite.cluster_id, invite.root_pem.strip()):
        raise PeerMismatchError(f"{invite.address} answers as {peer.name}, which is not whom the invitation names")
    return peer


async def confirm(peer: Client) -> PeerIdentity:
    """Step 2 at the joiner, over mutual TLS."""
    return await peer.call("peer.confirm", Nothing(), PeerIdentity)


async def join_node(invite: Invite, request: NodeJoin, clock: Clock) -> NodeJoined:
    """A node asks its controller for a certificate; raises RemoteError, WireError."""
    async with inviter(invite, clock) as client:
        return await client.call("node.join", request, NodeJoined)

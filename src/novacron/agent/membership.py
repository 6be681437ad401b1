"""A node's place in its cluster: joined once by invitation, renewed for as long as it lives."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import ClusterId, NodeId
from novacron.federation import invitation, peering
from novacron.protocol.node import NodeAnnounce, NodeJoin, NodeJoined, NodeRenew, Nothing
from novacron.wire.authority import LEAF_LIFE_S, csr_for, new_key, write_private
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId

RETRY_S: Final = 1.0
LOOK_EVERY_S: Final = 60.0
log = structlog.get_logger()


class Membership(Struct, frozen=True):
    """What the node remembers of its joining."""

    node_id: NodeId
    name: str
    cluster_id: ClusterId
    cluster_name: str
    controller: str  # host:port


def credentials_dir(data_dir: Path) -> Path:
    """Where a node keeps its key, its certificate and its trust."""
    return data_dir / "credentials"


def joined(data_dir: Path) -> Membership | None:
    """The membership that ``join`` has written, if it has."""
    try:
        return msgspec.json.decode(_file(data_dir).read_bytes(), type=Membership)
    except FileNotFoundError:
        return None


async def join(data_dir: Path, text: str, *, name: str, address: str, clock: Clock) -> Membership:
    """Join the cluster that invites; raises InvitationInvalidError, InvitationExpiredError, RemoteError, WireError."""
    invite = invitation.read(text, "node", clock.now())
    key = new_key()
    answer = await peering.join_node(invite, NodeJoin(invite.secret, name, address, csr_for(key)), clock)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    Credentials(key, answer.certificate_pem, answer.trust, clock).save(credentials_dir(data_dir))
    membership = Membership(answer.node_id, name, answer.cluster_id, answer.cluster_name, invite.address)
    write_private(_file(data_dir), msgspec.json.encode(membership))
    return membership


def moved(data_dir: Path, membership: Membership, controller: str) -> Membership:
    """The membership when its controller serves at ``controller`` from now on."""
    if controller == membership.controller:
        return membership
    membership = msgspec.structs.replace(membership, controller=controller)
    write_private(_file(data_dir), msgspec.json.encode(membership))
    return membership


async def attend(membership: Membership, credentials: Credentials, data_dir: Path, address: str, clock: Clock) -> None:
    """Tell the controller that this node serves at ``address``, and keep its certificate fresh, for ever."""
    expect = SpiffeId(membership.cluster_id, "controller")
    async with Client.known(membership.controller, credentials, expect=expect) as controller:
        announced = False
        while True:
            try:
                if not announced:
                    await controller.call("node.announce", NodeAnnounce(address), Nothing)
                    announced = True
                if credentials.expires_at - clock.now() < LEAF_LIFE_S / 2:
                    await _renew(controller, credentials, data_dir)
            except NovaCronError as error:
                log.info("controller_silent", controller=membership.controller, cause=error.cause)
            await clock.sleep(LOOK_EVERY_S if announced else RETRY_S)


async def _renew(controller: Client, credentials: Credentials, data_dir: Path) -> None:
    answer = await controller.call("node.renew", NodeRenew(csr_for(credentials.key)), NodeJoined)
    credentials.renew(answer.certificate_pem)
    await asyncio.to_thread(credentials.save, credentials_dir(data_dir))


def _file(data_dir: Path) -> Path:
    return data_dir / "membership.json"

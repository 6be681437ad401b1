"""``novacron federation``: clusters that trust each other."""

import sys

import click

from novacron.cli.kinds import PEERS, Found
from novacron.cli.node import print_invitation, valid_option
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment
from novacron.protocol.resources import PeerCluster
from novacron.protocol.rest import JoinRequest

COLUMNS: tuple[Column[PeerCluster], ...] = (
    Column("NAME", lambda peer: peer.name),
    Column("STATE", lambda peer: peer.state),
    Column("ADDRESS", lambda peer: peer.address),
    Column("SEEN", lambda peer: ago(peer.seen_at)),
    Column("ID", lambda peer: peer.id),
)
JOIN_TIMEOUT_S = 60.0


@click.group("federation")
def group() -> None:
    """Clusters that this one moves VMs to and from."""


@group.command("invite")
@valid_option
@in_session
def invite(session: Session, *, valid: int) -> None:
    """Print an invitation by which one cluster joins with this one."""
    print_invitation(session, "/federation/invite", valid)


@group.command("join")
@click.argument("invitation")
@in_session
def join(session: Session, invitation: str) -> None:
    """Join with the cluster whose INVITATION this is ("-" reads it from stdin)."""
    text = sys.stdin.read() if invitation == "-" else invitation
    request = JoinRequest(text.strip())
    with session.output.working("joining"):
        found = session.client.post("/federation/join", PeerCluster, request, timeout_s=JOIN_TIMEOUT_S)
    session.output.said(found.plain(), f"joined with cluster {found.value.name} at {found.value.address}")


@group.command("list")
@in_session
def list_peers(session: Session) -> None:
    """List the clusters that this one trusts."""
    empty = "There are no other clusters: novacron federation invite, then join at the other side"
    session.output.rows(session.client.list(PEERS), COLUMNS, empty=empty)


@group.command("show")
@click.argument("cluster")
@in_session
def show(session: Session, cluster: str) -> None:
    """Show one cluster that this one trusts."""
    found: Found[PeerCluster] = session.client.get(PEERS, cluster)
    peer = found.value
    facts = (
        ("name", peer.name),
        ("id", peer.id),
        ("state", peer.state),
        ("address", peer.address),
        ("joined", moment(peer.joined_at)),
        ("seen", moment(peer.seen_at)),
    )
    session.output.facts(found, facts)

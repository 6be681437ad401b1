"""``novacron node``: what is asked of the cluster about its nodes."""

import click

from novacron.cli.batch import tell_begun
from novacron.cli.kinds import NODES, at
from novacron.cli.measures import DURATION
from novacron.cli.output import Column
from novacron.cli.policy import policy_of
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment
from novacron.cli.time_window import window_of, window_options
from novacron.core.settings import load
from novacron.core.units import format_size
from novacron.protocol.node import Orphan
from novacron.protocol.resources import Batch, Node
from novacron.protocol.rest import DrainRequest, Invitation, InviteRequest
from novacron.protocol.time_window import TimeWindow


def _state(node: Node) -> str:
    """Whether it answers, and whether it takes VMs."""
    return ", ".join(filter(None, (node.state, node.drain)))


COLUMNS: tuple[Column[Node], ...] = (
    Column("NAME", lambda node: node.name),
    Column("STATE", _state),
    Column("ADDRESS", lambda node: node.address),
    Column("RUNS BY", lambda node: node.capabilities.accelerator),
    Column("CPUS", lambda node: str(node.capabilities.cpus or "")),
    Column("MEMORY FREE", lambda node: format_size(node.capabilities.memory_free_bytes)),
    Column("DISK FREE", lambda node: format_size(node.capabilities.disk_free_bytes)),
    Column("SEEN", lambda node: ago(node.seen_at)),
)
valid_option = click.option(
    "--valid", type=DURATION, default="1h", show_default=True, help="How long the invitation is good for."
)


@click.command("list")
@in_session
def list_nodes(session: Session) -> None:
    """List the nodes of the cluster."""
    session.output.rows(session.client.list(NODES), COLUMNS, empty="There are no nodes: novacron node invite")


@click.command("show")
@click.argument("node")
@in_session
def show(session: Session, node: str) -> None:
    """Show one node."""
    found = session.client.get(NODES, node)
    value, can = found.value, found.value.capabilities
    facts = (
        ("name", value.name),
        ("id", value.id),
        ("state", _state(value)),
        ("address", value.address),
        ("identity", value.spiffe_id),
        ("QEMU", ".".join(map(str, can.qemu_version)) if any(can.qemu_version) else ""),
        ("runs by", can.accelerator),
        ("cpus", str(can.cpus or "")),
        ("memory", f"{format_size(can.memory_free_bytes)} free of {format_size(can.memory_bytes)}"),
        ("disk", f"{format_size(can.disk_free_bytes)} free"),
        ("machines", f"{len(can.machine_types)} types" if can.machine_types else ""),
        ("seen", moment(value.seen_at)),
        ("probes", ", ".join(value.probes)),
        ("orphans", "\n".join(map(_orphan_text, value.orphans))),
    )
    session.output.facts(found, facts)


def _orphan_text(orphan: Orphan) -> str:
    return f"{'removed' if orphan.removed else 'kept'}: {orphan.name} ({orphan.what})"


@click.command("invite")
@valid_option
@in_session
def invite(session: Session, *, valid: int) -> None:
    """Print an invitation by which one host joins as a node."""
    print_invitation(session, f"{NODES.path}/invite", valid)


@click.command("drain")
@click.argument("node")
@click.option("--to", default="", metavar="CLUSTER[/NODE]", help="Where to, else to other nodes of its cluster.")
@click.option("--concurrency", type=int, help="How many VMs at once.  [default: the setting migrate.batch_concurrency]")
@click.option(
    "--priority",
    type=click.IntRange(-9, 9),
    default=0,
    show_default=True,
    help="The higher goes before other batches; three more are twice as much of a link that is shared.",
)
@window_options
@click.option("--follow", "follows", is_flag=True, help="Show how it goes, to the end.")
@in_session
def drain(
    session: Session,
    node: str,
    *,
    to: str,
    concurrency: int | None,
    priority: int,
    window: TimeWindow | None,
    overrun: bool,
    follows: bool,
) -> None:
    """Let a node take no VM any more, and move away what runs there. VMs that are off stay, and are named."""
    wanted = load(flags={"migrate.batch_concurrency": concurrency}).settings.migrate
    policy = policy_of(wanted, priority=priority, window=window_of(window, overrun=overrun))
    request = DrainRequest(to, wanted.batch_concurrency, policy)
    begun = session.client.post(at(NODES, node, "drain"), Batch, request)
    tell_begun(session, begun, f"node {node} takes no VM, and is drained by batch {begun.value.id}", follows=follows)


@click.command("undrain")
@click.argument("node")
@in_session
def undrain(session: Session, node: str) -> None:
    """Let a node take VMs again. What has moved away stays where it is."""
    found = session.client.post(at(NODES, node, "undrain"), Node)
    session.output.said(found.plain(), f"node {node} takes VMs again")


@click.command("remove")
@click.argument("node")
@in_session
def remove(session: Session, node: str) -> None:
    """Forget a node that has no VM and whose process has stopped."""
    found = session.client.get(NODES, node)
    session.client.remove(at(NODES, found.value.id))
    session.output.said(found.plain(), f"node {node} is removed")


def print_invitation(session: Session, path: str, valid_ms: int) -> None:
    """The text alone on stdout, so that it can be piped; what to know about it beside."""
    found = session.client.post(path, Invitation, InviteRequest(valid_ms // 1000))
    session.output.said(found.plain(), found.value.invitation)
    if session.output.form == "table":
        click.echo(f"Good once, until {moment(found.value.expires_at)}.", err=True)

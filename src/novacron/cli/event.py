"""``novacron event``."""

import click
import msgspec

from novacron.cli import events
from novacron.cli.session import Session, in_session

KINDS = ("cluster", "node", "image", "vm", "migration", "batch", "peer")


@click.group("event")
def group() -> None:
    """Changes of the cluster, as they happen."""


@group.command("watch")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these; may be repeated.")
@click.option("--after", type=int, metavar="VERSION", help="From this version on, else from now on.")
@in_session
def watch(session: Session, *, kinds: tuple[str, ...], after: int | None) -> None:
    """Print every change until Ctrl-C."""
    client = session.client
    start = client.current_version() if after is None else after
    for event in events.watch(client, kinds, start):
        if isinstance(event, events.Change):
            session.output.line(event, _text(event))
        elif isinstance(event, events.Lost):
            click.echo(f"{event.cause}; trying again", err=True)


def _text(change: events.Change) -> str:
    if change.value is None:
        return f"{change.version}  {change.kind}  {change.id}  gone"
    fields = msgspec.json.decode(change.value)
    state = fields.get("outcome") or fields.get("state") or fields.get("phase") or fields.get("format") or ""
    state = ", ".join(filter(None, (state, fields.get("drain"))))
    return f"{change.version}  {change.kind}  {fields.get('name') or fields.get('vm_name') or change.id}  {state}"

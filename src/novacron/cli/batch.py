"""``novacron batch``."""

import click

from novacron.cli.batch_view import BATCH, describe, move_lines, outcome, route
from novacron.cli.follow import follow
from novacron.cli.kinds import BATCHES, Found, at
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text
from novacron.protocol.resources import Batch

COLUMNS: tuple[Column[Batch], ...] = (
    Column("ID", lambda batch: batch.id),
    Column("ROUTE", route),
    Column("PRIORITY", lambda batch: str(batch.priority)),
    Column("OUTCOME", outcome),
    Column("STATE", describe),
    Column("BEGUN", lambda batch: ago(batch.started_at)),
)


@click.group("batch")
def group() -> None:
    """Many VMs on their way to one place, and nodes that are drained."""


@group.command("list")
@in_session
def list_batches(session: Session) -> None:
    """List batches, the newest first."""
    found = sorted(session.client.list(BATCHES), key=lambda item: -item.value.started_at)
    session.output.rows(found, COLUMNS, empty="There are no batches: novacron migrate VM VM --to CLUSTER")


@group.command("show")
@click.argument("batch")
@in_session
def show(session: Session, batch: str) -> None:
    """Show one batch, and what became of each of its VMs."""
    found = session.client.get(BATCHES, batch)
    value, problem = found.value, found.value.problem
    facts = (
        ("id", value.id),
        ("route", route(value)),
        ("drains", value.drains),
        ("state", describe(value)),
        ("at once", f"{value.concurrency} at a link and at a host, one to a node"),
        ("priority", str(value.priority)),
        ("begun", moment(value.started_at)),
        ("ended", moment(value.ended_at)),
        ("VMs", move_lines(value)),
        ("problem", problem_text(problem.code, problem.cause, problem.next_command) if problem else ""),
    )
    session.output.facts(found, facts)


@group.command("watch")
@click.argument("batch")
@in_session
def watch(session: Session, batch: str) -> None:
    """Follow a batch to its end. Ctrl-C leaves it running."""
    follow(session, BATCH, batch)


@group.command("cancel")
@click.argument("batch")
@in_session
def cancel(session: Session, batch: str) -> None:
    """Give up what is under way, and begin no more. What has moved stays where it is."""
    found = session.client.post(at(BATCHES, batch, "cancel"), Batch)
    watch_it = f"novacron batch watch {found.value.id}{session.context_flag}"
    session.output.said(found.plain(), f"batch {found.value.id} is being cancelled; watch it: {watch_it}")


def tell_begun(session: Session, begun: Found[Batch], sentence: str, *, follows: bool) -> None:
    """Follow what has begun, or say how to."""
    if follows:
        follow(session, BATCH, begun.value.id)
        return
    watch_it = f"novacron batch watch {begun.value.id}{session.context_flag}"
    session.output.said(begun.plain(), f"{sentence}; watch it: {watch_it}")

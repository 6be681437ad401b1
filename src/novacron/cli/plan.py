"""``novacron plan``."""

import click

from novacron.cli.kinds import PLANS
from novacron.cli.output import Column
from novacron.cli.plan_view import tell
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, span
from novacron.protocol.resources import Plan

COLUMNS: tuple[Column[Plan], ...] = (
    Column("ID", lambda plan: plan.id),
    Column("VM", lambda plan: plan.vm_name),
    Column("TO", lambda plan: f"{plan.target_cluster}/{plan.target_node}"),
    Column("STRATEGY", lambda plan: plan.strategy),
    Column("TIME", lambda plan: span(plan.predicted.total_ms.value) if plan.predicted else "no end"),
    Column("MADE", lambda plan: ago(plan.made_at)),
)


@click.group("plan")
def group() -> None:
    """How migrations would go: novacron migrate VM --to CLUSTER --plan."""


@group.command("list")
@in_session
def list_plans(session: Session) -> None:
    """List the plans of the last day, the newest first."""
    found = sorted(session.client.list(PLANS), key=lambda item: -item.value.made_at)
    session.output.rows(found, COLUMNS, empty="There are no plans: novacron migrate VM --to CLUSTER --plan")


@group.command("show")
@click.argument("plan")
@in_session
def show(session: Session, plan: str) -> None:
    """Show what a plan says."""
    tell(session, session.client.get(PLANS, plan))

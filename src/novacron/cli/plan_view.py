"""What a plan says, for people."""

from collections.abc import Callable
from typing import Final

import click

from novacron.cli.kinds import Found
from novacron.cli.output import table
from novacron.cli.session import Session
from novacron.cli.texts import span
from novacron.core.units import format_size
from novacron.protocol.migration import MigrationSummary
from novacron.protocol.plan import Prediction
from novacron.protocol.resources import Plan

FIGURES: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("total_ms", "total time", span),
    ("downtime_ms", "downtime", span),
    ("wire_bytes", "on the wire", format_size),
)


def tell(session: Session, found: Found[Plan]) -> None:
    """What would be done, why, what it would come to, and how to do it."""
    plan = found.value
    facts = (
        ("plan", plan.id),
        ("vm", f"{plan.vm_name} to {plan.target_cluster}, node {plan.target_node}"),
        ("strategy", plan.strategy),
        ("why", "\n".join(plan.reasons)),
    )
    session.output.facts(found, facts)
    if session.output.form != "table":
        return
    if plan.predicted is None:
        click.echo("it would never end, as the guest is now")
    else:
        rows = [[name, *_texts(plan.predicted, field, text)] for field, name, text in FIGURES]
        table(["", "EXPECTED", "AT LEAST", "AT MOST"], rows)
    to = f"{plan.target_cluster}/{plan.target_node}"
    click.echo(f"do it: novacron migrate {plan.vm_name} --to {to} --plan-id {plan.id}{session.context_flag}")


def predicted_facts(predicted: Prediction, summary: MigrationSummary | None) -> list[tuple[str, str]]:
    """What had been expected, beside what it came to."""
    facts = []
    for field, name, text in FIGURES:
        expected, low, high = _texts(predicted, field, text)
        came = f"; it came to {text(getattr(summary, field))}" if summary else ""
        facts.append((f"expected {name}", f"{expected} ({low} to {high}){came}"))
    return facts


def _texts(predicted: Prediction, field: str, text: Callable[[float], str]) -> tuple[str, str, str]:
    """The figure, and its bounds."""
    interval = getattr(predicted, field)
    return text(interval.value), text(interval.low), text(interval.high)

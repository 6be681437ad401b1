"""``novacron job``: long work, as the cluster's journal knows it."""

import click

from novacron.cli.kinds import JOBS
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import problem_text
from novacron.protocol.resources import Job

COLUMNS: tuple[Column[Job], ...] = (
    Column("ID", lambda job: job.id),
    Column("WORK", lambda job: job.workflow),
    Column("STATE", lambda job: job.state),
    Column("LAST STEP", lambda job: job.step),
    Column("ON", lambda job: job.subject.removeprefix("/api/v1/")),
    Column("PROBLEM", lambda job: job.problem.cause if job.problem else ""),
)


@click.group("job")
def group() -> None:
    """Long work of the cluster."""


@group.command("list")
@in_session
def list_jobs(session: Session) -> None:
    """List jobs, the newest first."""
    session.output.rows(session.client.list(JOBS), COLUMNS, empty="There has been no long work yet.")


@group.command("show")
@click.argument("job")
@in_session
def show(session: Session, job: str) -> None:
    """Show one job."""
    found = session.client.get(JOBS, job)
    value, problem = found.value, found.value.problem
    facts = (
        ("id", value.id),
        ("work", value.workflow),
        ("state", value.state),
        ("last step", value.step),
        ("on", value.subject),
        ("problem", problem_text(problem.code, problem.cause, problem.next_command) if problem else ""),
    )
    session.output.facts(found, facts)

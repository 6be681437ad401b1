"""``novacron migration``."""

import click

from novacron.cli.follow import follow as follow_to_end
from novacron.cli.kinds import JOBS, MIGRATIONS, Found, at
from novacron.cli.migration_view import MIGRATION
from novacron.cli.output import Column
from novacron.cli.plan_view import predicted_facts
from novacron.cli.progress import describe, options, summary_facts
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text, span
from novacron.cli.watching import check_job, until
from novacron.core.units import format_rate, format_size
from novacron.protocol.resources import Migration, MigrationSeries, ProgressPoint

COLUMNS: tuple[Column[Migration], ...] = (
    Column("ID", lambda migration: migration.id),
    Column("VM", lambda migration: migration.vm_name),
    Column("FROM", lambda migration: migration.source_cluster),
    Column("TO", lambda migration: migration.target_cluster),
    Column("PHASE", lambda migration: migration.phase),
    Column("OUTCOME", lambda migration: migration.outcome),
    Column("WIRE", lambda migration: format_size(migration.progress.wire_bytes)),
    Column("DOWNTIME", lambda migration: span(migration.summary.downtime_ms) if migration.summary else ""),
    Column("BEGUN", lambda migration: ago(migration.started_at)),
)


def point_columns(begun: float) -> tuple[Column[ProgressPoint], ...]:
    """Times count from ``begun`` on."""
    return (
        Column("AFTER", lambda point: span((point.at - begun) * 1000)),
        Column("PHASE", lambda point: point.progress.phase),
        Column("ROUND", lambda point: str(point.progress.round)),
        Column("DONE", lambda point: format_size(point.progress.done_bytes)),
        Column("OF", lambda point: format_size(point.progress.total_bytes)),
        Column("WIRE", lambda point: format_size(point.progress.wire_bytes)),
        Column("LINK", lambda point: format_rate(point.progress.wire_rate_bytes_s)),
        Column("DIRTIES", lambda point: format_rate(point.progress.dirty_rate_bytes_s)),
        Column("RTT", lambda point: span(point.progress.rtt_ms)),
    )


@click.group("migration")
def group() -> None:
    """Migrations: those that run, and those that were."""


@group.command("list")
@in_session
def list_migrations(session: Session) -> None:
    """List migrations, the newest first."""
    found = sorted(session.client.list(MIGRATIONS), key=lambda item: -item.value.started_at)
    session.output.rows(found, COLUMNS, empty="There are no migrations: novacron migrate VM --to CLUSTER")


@group.command("show")
@click.argument("migration")
@in_session
def show(session: Session, migration: str) -> None:
    """Show one migration as it is now."""
    found = session.client.get(MIGRATIONS, migration)
    value, problem = found.value, found.value.problem
    facts = (
        ("id", value.id),
        ("vm", f"{value.vm_name} ({value.vm_id})"),
        ("from", f"{value.source_cluster} {value.source_node}"),
        ("to", f"{value.target_cluster} {value.target_node}"),
        ("state", describe(value)),
        ("priority", str(value.priority) if value.priority else ""),
        ("attempt", f"{value.attempt}, after {value.retry_of}" if value.retry_of else ""),
        ("goes about it", value.differs),
        ("tried again by", value.retried_by or ""),
        ("the way back of", value.rolls_back or ""),
        ("comes back by", value.rolled_back_by or ""),
        ("lost", f"what the guest did from {moment(value.lost_since)} on" if value.lost_since else ""),
        ("notes", "\n".join(value.notes)),
        ("note", options(value, session.context_flag)),
        ("begun", moment(value.started_at)),
        ("ended", moment(value.ended_at)),
        *(summary_facts(value.summary) if value.summary else ()),
        ("plan", value.plan_id or ""),
        *(predicted_facts(value.predicted, value.summary) if value.predicted else ()),
        ("taken over on", f"the word: {value.attestation}" if value.attestation else ""),
        ("failed for", value.failure),
        ("problem", problem_text(problem.code, problem.cause, problem.next_command) if problem else ""),
    )
    session.output.facts(found, facts)


@group.command("series")
@click.argument("migration")
@in_session
def series(session: Session, migration: str) -> None:
    """Show how a migration went: its figures by time."""
    points = session.client.read(at(MIGRATIONS, migration, "series"), MigrationSeries).value.items
    columns = point_columns(points[0].at if points else 0.0)
    again = f"It has told nothing yet: novacron migration watch {migration}{session.context_flag}"
    session.output.rows([Found(point) for point in points], columns, empty=again)


@group.command("watch")
@click.argument("migration")
@in_session
def watch(session: Session, migration: str) -> None:
    """Follow a migration to its end. Ctrl-C leaves it running."""
    follow_to_end(session, MIGRATION, migration)


@group.command("cancel")
@click.argument("migration")
@in_session
def cancel(session: Session, migration: str) -> None:
    """Give a migration up before its point of no return: the VM runs on where it is."""
    found = session.client.post(at(MIGRATIONS, migration, "cancel"), Migration)
    watch_it = f"novacron migration watch {found.value.id}{session.context_flag}"
    session.output.said(found.plain(), f"migration {found.value.id} is being cancelled; watch it: {watch_it}")


@group.command("rollback")
@click.argument("migration")
@click.option("--no-wait", is_flag=True, help="Return once the way back has begun.")
@in_session
def rollback(session: Session, migration: str, *, no_wait: bool) -> None:
    """Fetch the VM again within the migration's window; what it has done since comes with it."""
    found = session.client.post(at(MIGRATIONS, migration, "rollback"), Migration)
    if no_wait:
        session.output.said(found.plain(), f"VM {found.value.vm_name} comes back: novacron migration list")
        return
    jobs = [item.value for item in session.client.list(JOBS) if item.value.workflow == "rollback"]
    job = next(job for job in jobs if job.subject.endswith(f"/{found.value.id}"))
    check_job(job)
    with session.output.working(f"fetching VM {found.value.vm_name} from {found.value.target_cluster}"):
        until(session.client, MIGRATIONS, found, job.id, lambda value: value.outcome == "rolled_back")
    back = session.client.get(MIGRATIONS, found.value.id)
    session.output.said(back.plain(), f"VM {found.value.vm_name} is back in {found.value.source_cluster}")

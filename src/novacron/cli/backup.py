"""``novacron backup``."""

import click

from novacron.cli import watching
from novacron.cli.backup_view import BACKUP
from novacron.cli.errors import WorkFailedError
from novacron.cli.follow import follow
from novacron.cli.kinds import BACKUPS, JOBS, VMS, at
from novacron.cli.measures import RATE
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text, span
from novacron.cli.work_view import describe
from novacron.core.units import format_size
from novacron.protocol.resources import Backup
from novacron.protocol.rest import BackupRequest

COLUMNS: tuple[Column[Backup], ...] = (
    Column("ID", lambda one: one.id),
    Column("VM", lambda one: one.vm_name),
    Column("REPOSITORY", lambda one: one.repository_name),
    Column("STATE", describe),
    Column("READ", lambda one: format_size(one.facts.read_bytes) if one.facts else ""),
    Column("NEW", lambda one: format_size(one.facts.new_bytes) if one.facts else ""),
    Column("STORED", lambda one: format_size(one.facts.stored_bytes) if one.facts else ""),
    Column("CONSISTENT BY", lambda one: one.facts.consistency if one.facts else ""),
    Column("TAKEN", lambda one: ago(one.facts.created_at if one.facts else one.begun_at)),
)


@click.group("backup")
def group() -> None:
    """The disks of VMs at one instant, in repositories."""


@group.command("run")
@click.argument("vm")
@click.option("--repo", "repository", required=True, help="Where it goes; see: novacron repo list.")
@click.option("--full", is_flag=True, help="Read everything, whatever is known; only what is new is stored.")
@click.option("--no-freeze", is_flag=True, help="Do not ask the guest's agent to hold its file systems.")
@click.option("--bandwidth", type=RATE, default=0, metavar="RATE", help="Store no faster, on average: 200Mbit/s.")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def run(
    session: Session, vm: str, *, repository: str, full: bool, no_freeze: bool, bandwidth: int, no_wait: bool
) -> None:
    """Back a VM up: running, paused or off. Only what has changed since its last backup there is read."""
    request = BackupRequest(repository, full, not no_freeze, bandwidth)
    begun = session.client.post(at(VMS, vm, "backups"), Backup, request)
    if no_wait:
        watch_it = f"novacron backup watch {begun.value.id}{session.context_flag}"
        session.output.said(begun.plain(), f"VM {vm} is being backed up; watch it: {watch_it}")
        return
    try:
        follow(session, BACKUP, begun.value.id)
    except WorkFailedError:
        watching.check_job(session.client.get(JOBS, begun.value.job_id).value)  # one that was not made is gone
        raise


@group.command("list")
@click.argument("vm", required=False, default="")
@click.option("--repo", "repository", default="", help="Only those in it.")
@in_session
def list_backups(session: Session, vm: str, *, repository: str) -> None:
    """List backups, of one VM or of all, the newest first."""
    found = [
        one
        for one in session.client.list(BACKUPS)
        if vm in {"", one.value.vm_name, one.value.vm_id}
        and repository in {"", one.value.repository_name, one.value.repository_id}
    ]
    found.sort(key=lambda one: -one.value.begun_at)
    session.output.rows(found, COLUMNS, empty=f"There are no backups: novacron backup run {vm or 'VM'} --repo NAME")


@group.command("show")
@click.argument("backup")
@in_session
def show(session: Session, backup: str) -> None:
    """Show one backup."""
    found = session.client.get(BACKUPS, backup)
    value, facts, problem = found.value, found.value.facts, found.value.problem
    names = session.node_names()
    shown = [
        ("id", value.id),
        ("vm", f"{value.vm_name} ({value.vm_id})"),
        ("repository", value.repository_name),
        ("node", names.get(value.node_id, value.node_id)),
        ("state", describe(value)),
        ("job", value.job_id),
    ]
    if facts is not None:
        shown += [
            ("taken", moment(facts.created_at)),
            ("consistent by", f"{facts.consistency} {facts.note}".strip()),
            ("frozen", span(facts.frozen_ms) if facts.frozen_ms else ""),
            ("leaned on", facts.base),
            ("all was read", f"because {facts.full_because}" if facts.full_because else ""),
            ("read", format_size(facts.read_bytes)),
            ("new", f"{format_size(facts.new_bytes)}, stored in {format_size(facts.stored_bytes)}"),
        ]
    if problem is not None:
        shown.append(("problem", problem_text(problem.code, problem.cause, problem.next_command)))
    session.output.facts(found, shown)


@group.command("watch")
@click.argument("backup")
@in_session
def watch(session: Session, backup: str) -> None:
    """Follow the making of a backup to its end. Ctrl-C leaves it running."""
    follow(session, BACKUP, backup)


@group.command("cancel")
@click.argument("backup")
@in_session
def cancel(session: Session, backup: str) -> None:
    """Give up a backup that is being made: nothing of it stays."""
    found = session.client.post(at(BACKUPS, backup, "cancel"), Backup)
    session.output.said(found.plain(), f"backup {backup} is being given up")


@group.command("delete")
@click.argument("backup")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def delete(session: Session, backup: str, *, no_wait: bool) -> None:
    """Remove a backup. What it alone needs goes with: novacron repo prune."""
    begun = session.client.delete(at(BACKUPS, backup), Backup)
    if not no_wait:
        with session.output.working(f"deleting backup {backup}"):
            watching.until(session.client, BACKUPS, begun, begun.value.job_id, lambda _: False)
    session.output.said(begun.plain(), f"backup {backup} is {'being deleted' if no_wait else 'deleted'}")

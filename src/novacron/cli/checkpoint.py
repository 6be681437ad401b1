"""``novacron vm checkpoint``."""

import click

from novacron.cli import watching
from novacron.cli.checkpoint_view import CHECKPOINT
from novacron.cli.errors import WorkFailedError
from novacron.cli.follow import follow
from novacron.cli.kinds import CHECKPOINTS, JOBS, VMS, Found, at
from novacron.cli.measures import DURATION
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text, span
from novacron.cli.work_view import describe
from novacron.core.units import format_size
from novacron.protocol.resources import Checkpoint
from novacron.protocol.rest import CheckpointRequest, RestoreRequest

COLUMNS: tuple[Column[Checkpoint], ...] = (
    Column("ID", lambda one: one.id),
    Column("VM", lambda one: one.vm_name),
    Column("STATE", describe),
    Column("CONTENT", lambda one: format_size(one.facts.read_bytes) if one.facts else ""),
    Column("NEW", lambda one: format_size(one.facts.new_bytes) if one.facts else ""),
    Column("STORED", lambda one: format_size(one.facts.stored_bytes) if one.facts else ""),
    Column("STOOD STILL", lambda one: span(one.facts.downtime_ms) if one.facts else ""),
    Column("TAKEN", lambda one: ago(one.facts.created_at if one.facts else one.begun_at)),
)


@click.group("checkpoint")
def group() -> None:
    """A VM as it was at one instant: memory, devices and disks."""


@group.command("create")
@click.argument("vm")
@click.option("--keep", type=click.IntRange(min=0), default=0, help="Of this VM keep the newest so many; else all.")
@click.option("--for", "keep_for", type=DURATION, default=0, metavar="DURATION", help="It may go after so long: 7d.")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def create(session: Session, vm: str, *, keep: int, keep_for: int, no_wait: bool) -> None:
    """Make a checkpoint. The guest stands still for a moment, and goes on while what was taken is stored."""
    path = at(VMS, vm, "checkpoints")
    made = session.client.post(path, Checkpoint, CheckpointRequest(keep, keep_for))
    _tell_begun(session, made, f"a checkpoint of VM {vm} is being made", wait=not no_wait)


@group.command("list")
@click.argument("vm", required=False, default="")
@in_session
def list_checkpoints(session: Session, vm: str) -> None:
    """List checkpoints, of one VM or of all, the newest first."""
    found = [one for one in session.client.list(CHECKPOINTS) if vm in {"", one.value.vm_name, one.value.vm_id}]
    found.sort(key=lambda one: -one.value.begun_at)
    session.output.rows(found, COLUMNS, empty=f"There are no checkpoints: novacron vm checkpoint create {vm or 'VM'}")


@group.command("show")
@click.argument("checkpoint")
@in_session
def show(session: Session, checkpoint: str) -> None:
    """Show one checkpoint."""
    found = session.client.get(CHECKPOINTS, checkpoint)
    value, facts, problem = found.value, found.value.facts, found.value.problem
    names = session.node_names()
    shown = [
        ("id", value.id),
        ("vm", f"{value.vm_name} ({value.vm_id})"),
        ("node", names.get(value.node_id, value.node_id)),
        ("state", describe(value)),
        ("job", value.job_id),
    ]
    if facts is not None:
        shown += [
            ("taken", moment(facts.created_at)),
            ("the guest", "ran" if facts.running else "was paused"),
            ("stood still", span(facts.downtime_ms)),
            ("content", format_size(facts.read_bytes)),
            ("new", f"{format_size(facts.new_bytes)}, stored in {format_size(facts.stored_bytes)}"),
            ("may go", moment(facts.expires_at)),
        ]
    if problem is not None:
        shown.append(("problem", problem_text(problem.code, problem.cause, problem.next_command)))
    session.output.facts(found, shown)


@group.command("watch")
@click.argument("checkpoint")
@in_session
def watch(session: Session, checkpoint: str) -> None:
    """Follow the making or the restore of a checkpoint to its end. Ctrl-C leaves it running."""
    follow(session, CHECKPOINT, checkpoint)


@group.command("cancel")
@click.argument("checkpoint")
@in_session
def cancel(session: Session, checkpoint: str) -> None:
    """Give up the making or the restore of a checkpoint: the VM is what it was."""
    found = session.client.post(at(CHECKPOINTS, checkpoint, "cancel"), Checkpoint)
    session.output.said(found.plain(), f"checkpoint {checkpoint} is being given up")


@group.command("restore")
@click.argument("checkpoint")
@click.option("--force", is_flag=True, help="End the VM if it runs: what it has done since is lost.")
@click.option("--as", "name", default="", metavar="NAME", help="As a new VM of that name; the VM itself is left alone.")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def restore(session: Session, checkpoint: str, *, force: bool, name: str, no_wait: bool) -> None:
    """Bring a VM back as a checkpoint has it: it goes on from that instant. If that fails, it is as it was before.

    A new VM has disks and addresses of its own. Its guest learns them when it boots; until then it takes itself for
    the one that it was, so with a card on a bridge it comes paused.
    """
    path = at(CHECKPOINTS, checkpoint, "restore")
    begun = session.client.post(path, Checkpoint, RestoreRequest(force, name))
    what = f"VM {name} is being made of {checkpoint}" if name else f"VM {begun.value.vm_name} is being restored"
    _tell_begun(session, begun, what, wait=not no_wait)


@group.command("delete")
@click.argument("checkpoint")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def delete(session: Session, checkpoint: str, *, no_wait: bool) -> None:
    """Remove a checkpoint, with what no other one needs."""
    begun = session.client.delete(at(CHECKPOINTS, checkpoint), Checkpoint)
    if not no_wait:
        with session.output.working(f"deleting checkpoint {checkpoint}"):
            watching.until(session.client, CHECKPOINTS, begun, begun.value.job_id, lambda _: False)
    session.output.said(begun.plain(), f"checkpoint {checkpoint} is {'being deleted' if no_wait else 'deleted'}")


def _tell_begun(session: Session, begun: Found[Checkpoint], sentence: str, *, wait: bool) -> None:
    """Follow what has begun, or say how to; raises what it failed for."""
    if not wait:
        watch_it = f"novacron vm checkpoint watch {begun.value.id}{session.context_flag}"
        session.output.said(begun.plain(), f"{sentence}; watch it: {watch_it}")
        return
    try:
        follow(session, CHECKPOINT, begun.value.id)
    except WorkFailedError:
        watching.check_job(session.client.get(JOBS, begun.value.job_id).value)  # one that was not made is gone
        raise

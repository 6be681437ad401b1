"""``novacron migrate``."""

import click

from novacron.cli.batch import tell_begun
from novacron.cli.follow import follow
from novacron.cli.kinds import BATCHES, MIGRATIONS, PLANS
from novacron.cli.measures import BANDWIDTH, DURATION
from novacron.cli.migration_view import MIGRATION
from novacron.cli.plan_view import tell
from novacron.cli.policy import policy_of
from novacron.cli.progress import begin_text
from novacron.cli.session import Session, in_session
from novacron.cli.time_window import window_of, window_options
from novacron.core.settings import load
from novacron.protocol.resources import Batch, Migration, Plan
from novacron.protocol.rest import BatchRequest, MigrateRequest, PlanRequest
from novacron.protocol.time_window import TimeWindow

DEFAULT = "  [default: the setting migrate."


@click.command("migrate")
@click.argument("vms", metavar="VM...", nargs=-1)
@click.option("--to", required=True, metavar="CLUSTER[/NODE]", help="/NODE alone: another node of the same cluster.")
@click.option(
    "--strategy",
    type=click.Choice(["stream", "cold", "native", "postcopy", "auto"]),
    help="stream: it runs; cold: it stands still while its memory moves; native: it runs, and QEMU itself sends its "
    "memory, for very fast links; postcopy: it goes ahead, and the rest of its memory follows; "
    f"auto: by a plan.{DEFAULT}strategy]",
)
@click.option(
    "--when-busy",
    type=click.Choice(["wait", "throttle", "stop", "postcopy"]),
    help=f"What to do about a guest that outruns the link.{DEFAULT}when_busy]",
)
@click.option("--busy-after", type=DURATION, help=f"How long it is waited for; 0: for ever.{DEFAULT}busy_after_ms]")
@click.option(
    "--busy-then",
    type=click.Choice(["throttle", "stop", "postcopy", "fail"]),
    help=f"What the attempt after that one does about it.{DEFAULT}busy_then]",
)
@click.option("--all-from", metavar="NODE", default="", help="All VMs of a node, instead of those that are named.")
@click.option("--concurrency", type=int, help=f"Of many VMs, how many at once.{DEFAULT}batch_concurrency]")
@click.option(
    "--priority",
    type=click.IntRange(-9, 9),
    default=0,
    show_default=True,
    help="On a link that is shared, three more are twice as much of it; a batch goes before those of a lower one.",
)
@click.option("--max-downtime", type=DURATION, help=f"How long the guest may stand still.{DEFAULT}max_downtime_ms]")
@click.option("--bandwidth", type=BANDWIDTH, help="At most this much of the link: 200Mbit/s, or 60% of what it gives.")
@click.option("--streams", type=int, help=f"Connections; 0: as many as the link needs.{DEFAULT}streams]")
@click.option(
    "--level", type=int, help=f"Of compression, 1 to 19; 0: by what link and content are.{DEFAULT}compression_level]"
)
@click.option("--no-disks", is_flag=True, help="Leave the disks: both sides reach the same ones.")
@click.option(
    "--verify",
    type=click.Choice(["any", "agent"]),
    help=f"What the guest must show over there: any sign of life, or its agent's answer.{DEFAULT}verify]",
)
@click.option("--probe", metavar="NAME", default="", help="A program of the node over there that must succeed besides.")
@click.option("--verify-within", type=DURATION, help=f"How long that may take.{DEFAULT}verify_within_ms]")
@click.option(
    "--on-unverified",
    type=click.Choice(["rollback", "keep"]),
    help=f"Where the guest goes that does not show it, or dies within the window.{DEFAULT}on_unverified]",
)
@click.option("--verify-window", type=DURATION, help=f"How long a rollback stays possible.{DEFAULT}verify_window_ms]")
@click.option("--stall-after", type=DURATION, help=f"How long nothing may move in it.{DEFAULT}stall_after_ms]")
@click.option("--retry-for", type=DURATION, help=f"How long one that broke is begun again.{DEFAULT}retry_for_ms]")
@window_options
@click.option("--plan", "plans", is_flag=True, help="Say how it would go, and do nothing.")
@click.option("--plan-id", metavar="PLAN", default="", help="Do what that plan says, or refuse when it holds no more.")
@click.option("--follow", "follows", is_flag=True, help="Show how it goes, to the end.")
@in_session
def command(
    session: Session,
    vms: tuple[str, ...],
    *,
    to: str,
    strategy: str | None,
    when_busy: str | None,
    busy_after: int | None,
    busy_then: str | None,
    all_from: str,
    concurrency: int | None,
    priority: int,
    max_downtime: int | None,
    bandwidth: float | None,
    streams: int | None,
    level: int | None,
    no_disks: bool,
    verify: str | None,
    probe: str,
    verify_within: int | None,
    on_unverified: str | None,
    verify_window: int | None,
    stall_after: int | None,
    retry_for: int | None,
    window: TimeWindow | None,
    overrun: bool,
    plans: bool,
    plan_id: str,
    follows: bool,
) -> None:
    """Move VMs to another cluster or node while they run: one, or many by a batch."""
    if bool(vms) == bool(all_from):
        raise click.UsageError("name VMs, or give --all-from NODE")
    if (plans or plan_id) and len(vms) != 1:
        raise click.UsageError("a plan is of one VM")
    flags = {
        "migrate.strategy": strategy,
        "migrate.when_busy": when_busy,
        "migrate.busy_after_ms": busy_after,
        "migrate.busy_then": busy_then,
        "migrate.batch_concurrency": concurrency,
        "migrate.max_downtime_ms": max_downtime,
        "migrate.verify": verify,
        "migrate.verify_within_ms": verify_within,
        "migrate.on_unverified": on_unverified,
        "migrate.verify_window_ms": verify_window,
        "migrate.stall_after_ms": stall_after,
        "migrate.retry_for_ms": retry_for,
        "migrate.streams": streams,
        "migrate.compression_level": level,
    }
    wanted = load(flags=flags).settings.migrate
    policy = policy_of(
        wanted,
        priority=priority,
        bandwidth=bandwidth,
        move_disks=not no_disks,
        probe=probe,
        window=window_of(window, overrun=overrun),
    )
    if all_from or len(vms) > 1:
        many = BatchRequest(to, vms, all_from, wanted.batch_concurrency, policy)
        batch = session.client.post(BATCHES.path, Batch, many)
        tell_begun(session, batch, f"batch {batch.value.id} has begun", follows=follows)
        return
    if plans:
        tell(session, session.client.post(PLANS.path, Plan, PlanRequest(vms[0], to, policy)))
        return
    request = MigrateRequest(vms[0], to, plan_id=plan_id) if plan_id else MigrateRequest(vms[0], to, policy)
    begun = session.client.post(MIGRATIONS.path, Migration, request)
    if follows:
        follow(session, MIGRATION, begun.value.id)
        return
    watch = f"novacron migration watch {begun.value.id}{session.context_flag}"
    begins = begin_text(begun.value) or "has begun"
    session.output.said(begun.plain(), f"migration {begun.value.id} {begins}; watch it: {watch}")

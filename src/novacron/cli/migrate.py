"""``novacron migrate``."""

import click

from novacron.cli.follow import follow
from novacron.cli.kinds import MIGRATIONS
from novacron.cli.measures import DURATION, RATE
from novacron.cli.migration_view import MIGRATION
from novacron.cli.session import Session, in_session
from novacron.core.settings import load
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Migration
from novacron.protocol.rest import MigrateRequest

DEFAULT = "  [default: the setting migrate."


@click.command("migrate")
@click.argument("vm")
@click.option("--to", required=True, metavar="CLUSTER[/NODE]", help="/NODE alone: another node of the same cluster.")
@click.option(
    "--strategy",
    type=click.Choice(["stream", "cold"]),
    help=f"stream: it runs meanwhile; cold: it stands still while its memory moves.{DEFAULT}strategy]",
)
@click.option(
    "--when-busy",
    type=click.Choice(["wait", "throttle", "stop"]),
    help=f"What to do about a guest that outruns the link.{DEFAULT}when_busy]",
)
@click.option("--max-downtime", type=DURATION, help=f"How long the guest may stand still.{DEFAULT}max_downtime_ms]")
@click.option("--bandwidth", type=RATE, help="At most this much of the link, for example 200Mbit/s.")
@click.option("--streams", type=int, help=f"Connections.{DEFAULT}streams]")
@click.option("--level", type=int, help=f"Of compression, 1 to 19.{DEFAULT}compression_level]")
@click.option("--no-disks", is_flag=True, help="Leave the disks: both sides reach the same ones.")
@click.option("--verify-window", type=DURATION, help=f"How long a rollback stays possible.{DEFAULT}verify_window_ms]")
@click.option("--retry-for", type=DURATION, help=f"How long one that broke is begun again.{DEFAULT}retry_for_ms]")
@click.option("--follow", "follows", is_flag=True, help="Show how it goes, to the end.")
@in_session
def command(
    session: Session,
    vm: str,
    *,
    to: str,
    strategy: str | None,
    when_busy: str | None,
    max_downtime: int | None,
    bandwidth: int | None,
    streams: int | None,
    level: int | None,
    no_disks: bool,
    verify_window: int | None,
    retry_for: int | None,
    follows: bool,
) -> None:
    """Move a VM to another cluster or node while it runs."""
    flags = {
        "migrate.strategy": strategy,
        "migrate.when_busy": when_busy,
        "migrate.max_downtime_ms": max_downtime,
        "migrate.verify_window_ms": verify_window,
        "migrate.retry_for_ms": retry_for,
        "migrate.streams": streams,
        "migrate.compression_level": level,
    }
    wanted = load(flags=flags).settings.migrate
    policy = MigrationPolicy(
        strategy=wanted.strategy,
        when_busy=wanted.when_busy,
        max_downtime_ms=wanted.max_downtime_ms,
        bandwidth_bytes_s=bandwidth,
        streams=wanted.streams,
        compression_level=wanted.compression_level,
        verify_window_ms=wanted.verify_window_ms,
        move_disks=not no_disks,
        retry_for_ms=wanted.retry_for_ms,
    )
    begun = session.client.post(MIGRATIONS.path, Migration, MigrateRequest(vm, to, policy))
    if follows:
        follow(session, MIGRATION, begun.value.id)
        return
    watch = f"novacron migration watch {begun.value.id}{session.context_flag}"
    session.output.said(begun.plain(), f"migration {begun.value.id} has begun; watch it: {watch}")

"""How a migration is followed."""

from collections.abc import Callable, Iterable
from typing import Final

from novacron.cli.errors import UnverifiedError, WorkFailedError
from novacron.cli.follow import View
from novacron.cli.kinds import MIGRATIONS
from novacron.cli.live import Picture
from novacron.cli.progress import ARRIVED, Bar, describe, options, summary_facts
from novacron.protocol.resources import Migration


def pictures(context_flag: str = "") -> Callable[[Migration], Picture]:
    """What is drawn of one migration; ``context_flag`` is what proposed commands carry."""
    bar = Bar()

    def picture(migration: Migration) -> Picture:
        route = f"{migration.vm_name}  {migration.source_cluster} → {migration.target_cluster}"
        return Picture(route, bar.advance(migration), describe(migration), options(migration, context_flag))

    return picture


def judge(migration: Migration) -> None:
    """Raises WorkFailedError or UnverifiedError, unless it succeeded and was verified."""
    look = f"novacron migration show {migration.id}"
    if migration.outcome not in ARRIVED:
        problem = migration.problem
        raise WorkFailedError(
            problem.cause if problem else f"the migration was {migration.outcome.replace('_', ' ')}",
            code=problem.code if problem else f"migration_{migration.outcome}",
            next_command=(problem and problem.next_command) or look,
        )
    if migration.summary is None or not migration.summary.verified:
        problem = migration.problem
        raise UnverifiedError(
            problem.cause if problem else f"VM {migration.vm_name} has moved, but was not verified",
            next_command=(problem and problem.next_command) or look,
        )


def _facts(migration: Migration, context_flag: str) -> Iterable[tuple[str, str]]:
    summary = summary_facts(migration.summary) if migration.summary else ()
    window = migration.outcome in ARRIVED and migration.direction == "outgoing" and migration.phase == "window"
    back = f"novacron migration rollback {migration.id}{context_flag}" if window else ""
    route = f"{migration.vm_name}: {migration.source_cluster} → {migration.target_cluster}"
    return (("migration", route), ("outcome", migration.outcome), *summary, ("go back", back))


MIGRATION: Final = View(
    word="migration",
    kind=MIGRATIONS,
    outcome=lambda migration: migration.outcome,
    goes_on_as=lambda migration: migration.retried_by,
    pictures=pictures,
    facts=_facts,
    judge=judge,
)

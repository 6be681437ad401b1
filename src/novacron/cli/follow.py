"""A migration followed to its end: a live line on a terminal, JSON lines in a pipe.

Following is only looking: Ctrl-C ends the look, and the migration goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from novacron.cli.errors import UnverifiedError, WorkFailedError
from novacron.cli.kinds import MIGRATIONS, Found
from novacron.cli.live import Show, live_line
from novacron.cli.progress import summary_facts
from novacron.cli.session import Session
from novacron.cli.watching import Sight, watch_one
from novacron.protocol.resources import Migration

INTERRUPTED: Final = 130


def follow(session: Session, reference: str) -> None:
    """Until it has an outcome. Exit 0: done and verified; else raises WorkFailedError or UnverifiedError."""
    try:
        end = _watch(session, reference)
    except KeyboardInterrupt:
        flag = session.context_flag
        click.echo("The migration goes on.", err=True)
        click.echo(f"watch it:  novacron migration watch {reference}{flag}", err=True)
        click.echo(f"cancel it: novacron migration cancel {reference}{flag}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    _tell(session, end)
    judge(end.value)


def judge(migration: Migration) -> None:
    """Raises what a migration that has ended was, unless it succeeded and was verified."""
    look = f"novacron migration show {migration.id}"
    if migration.outcome != "succeeded":
        problem = migration.problem
        raise WorkFailedError(
            problem.cause if problem else f"the migration was {migration.outcome.replace('_', ' ')}",
            code=problem.code if problem else f"migration_{migration.outcome}",
            next_command=(problem and problem.next_command) or look,
        )
    if migration.summary is None or not migration.summary.verified:
        raise UnverifiedError(f"VM {migration.vm_name} has moved, but was not verified", next_command=look)


def _watch(session: Session, reference: str) -> Found[Migration]:
    """The last attempt once it has an outcome, every one shown on the way."""
    with _shown(session) as show:
        end = _watch_attempt(session, reference, show)
        while end.value.retried_by is not None:
            end = _watch_attempt(session, end.value.retried_by, show)
        return end


def _watch_attempt(session: Session, reference: str, show: Show) -> Found[Migration]:
    for sight in watch_one(session.client, MIGRATIONS, reference):
        migration = _present(sight, reference)
        show(migration, sight.lost)
        if migration.outcome:
            return Found(migration, sight.version)
    raise AssertionError  # watch_one ends only for what is gone


def _present(sight: Sight[Migration], reference: str) -> Migration:
    if sight.value is None:
        raise WorkFailedError(
            f"migration {reference} is not known any more", code="not_found", next_command="novacron migration list"
        )
    return sight.value


@contextmanager
def _shown(session: Session) -> Iterator[Show]:
    """How the way is shown: a live line, lines of JSON, or not at all (one document at the end)."""
    if session.output.streams:
        yield _lines(session)
    elif session.output.for_people:
        with live_line(session.context_flag) as show:
            yield show
    else:
        yield lambda _migration, _lost: None


def _lines(session: Session) -> Show:
    last: list[Migration] = []

    def show(migration: Migration, _lost: str) -> None:
        if last != [migration]:  # a beat shows the same again
            last[:] = [migration]
            session.output.record(migration)

    return show


def _tell(session: Session, end: Found[Migration]) -> None:
    """The last word, in the form that was asked for."""
    migration = end.value
    if session.output.streams:
        return  # the last line has said it
    summary = summary_facts(migration.summary) if migration.summary else ()
    window = migration.outcome == "succeeded" and migration.direction == "outgoing" and migration.phase == "window"
    back = f"novacron migration rollback {migration.id}{session.context_flag}" if window else ""
    route = f"{migration.vm_name}: {migration.source_cluster} → {migration.target_cluster}"
    session.output.facts(end, (("migration", route), ("outcome", migration.outcome), *summary, ("go back", back)))

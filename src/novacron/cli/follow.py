"""Long work followed to its end: a live line on a terminal, JSON lines in a pipe.

Following is only looking: Ctrl-C ends the look, and the work goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import click
from msgspec import Struct

from novacron.cli.errors import WorkFailedError
from novacron.cli.kinds import Found, Kind
from novacron.cli.live import Picture, live_line
from novacron.cli.session import Session
from novacron.cli.watching import watch_one

T = TypeVar("T", bound=Struct)
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """What is followed, and how it is shown. What is given a text puts it behind the commands that it proposes."""

    word: str  # of its commands: novacron WORD watch
    kind: Kind[T]
    outcome: Callable[[T], str]  # empty while it goes on
    goes_on_as: Callable[[T], str | None]  # what is followed instead once it has ended
    pictures: Callable[[str], Callable[[T], Picture]]
    facts: Callable[[T, str], Iterable[tuple[str, str]]]  # the last word
    judge: Callable[[T], None]  # raises what it was, unless it ended well


def follow(session: Session, view: View[T], reference: str) -> None:
    """Until it has an outcome; raises what ``view.judge`` raises."""
    try:
        end = _watch(session, view, reference)
    except KeyboardInterrupt:
        flag = session.context_flag
        click.echo(f"The {view.word} goes on.", err=True)
        click.echo(f"watch it:  novacron {view.word} watch {reference}{flag}", err=True)
        click.echo(f"cancel it: novacron {view.word} cancel {reference}{flag}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    if not session.output.streams:  # else the last line has said it
        session.output.facts(end, view.facts(end.value, session.context_flag))
    view.judge(end.value)


def _watch(session: Session, view: View[T], reference: str) -> Found[T]:
    """The last of it once it has an outcome, every one shown on the way."""
    with _shown(session, view) as show:
        end = _watch_one(session, view, reference, show)
        while following := view.goes_on_as(end.value):
            end = _watch_one(session, view, following, show)
        return end


def _watch_one(session: Session, view: View[T], reference: str, show: Callable[[T, str], None]) -> Found[T]:
    for sight in watch_one(session.client, view.kind, reference):
        if sight.value is None:
            raise WorkFailedError(
                f"{view.word} {reference} is not known any more",
                code="not_found",
                next_command=f"novacron {view.word} list",
            )
        show(sight.value, sight.lost)
        if view.outcome(sight.value):
            return Found(sight.value, sight.version)
    raise AssertionError  # watch_one ends only for what is gone


@contextmanager
def _shown(session: Session, view: View[T]) -> Iterator[Callable[[T, str], None]]:
    """How the way is shown: a live line, lines of JSON, or not at all (one document at the end)."""
    if session.output.streams:
        yield _lines(session)
    elif session.output.for_people:
        with live_line(view.pictures(session.context_flag)) as show:
            yield show
    else:
        yield lambda _value, _lost: None


def _lines(session: Session) -> Callable[[Struct, str], None]:
    last: list[Struct] = []

    def show(value: Struct, _lost: str) -> None:
        if last != [value]:  # a beat shows the same again
            last[:] = [value]
            session.output.record(value)

    return show

"""What commands print: a table for people, JSON, JSON lines or YAML for programs.

On a terminal tables are drawn with rich; piped they are plain columns.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, NamedTuple, TypeVar

import click
import msgspec
from msgspec import Struct

from novacron.cli.kinds import Found

T = TypeVar("T", bound=Struct)
GAP: Final = "  "
COLOURS: Final = {
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "running": "green",
    "ready": "green",
    "joined": "green",
    "done": "green",
    "succeeded": "green",
    "unverified": "red",
    "failed": "red",
    "unreachable": "red",
    "creating": "yellow",
    "migrating": "yellow",
    "joining": "yellow",
    "paused": "yellow",
}


class Column(NamedTuple, Generic[T]):
    """A column of a table."""

    title: str
    cell: Callable[[T], str]


class Output:
    """Prints in one of the forms ``table``, ``json``, ``ndjson``, ``yaml``."""

    def __init__(self, form: str) -> None:
        self.form = form

    @property
    def for_people(self) -> bool:
        """Whether somebody reads it on a terminal now."""
        return self.form == "table" and sys.stdout.isatty()

    @property
    def draws_progress(self) -> bool:
        """Whether somebody watches what goes on, beside what is printed."""
        return self.form == "table" and sys.stderr.isatty()

    @property
    def streams(self) -> bool:
        """Whether what goes on is printed line by line: asked for, or piped."""
        return self.form == "ndjson" or (self.form == "table" and not sys.stdout.isatty())

    def rows(self, found: Sequence[Found[T]], columns: Sequence[Column[T]], *, empty: str) -> None:
        """A list. ``empty`` is what people read when there is nothing: what to do about it."""
        if self.form != "table":
            self._emit([item.plain() for item in found])
        elif not found:
            click.echo(empty, err=True)
        else:
            titles = [column.title for column in columns]
            table(titles, [[column.cell(item.value) for column in columns] for item in found])

    def facts(self, found: Found[T], facts: Iterable[tuple[str, str]]) -> None:
        """One thing: its fields for programs, ``facts`` (name, text) for people; facts without a text are left out."""
        if self.form != "table":
            self._emit(found.plain())
            return
        shown = [(name, text) for name, text in facts if text]
        width = max((len(name) for name, _ in shown), default=0)
        for name, text in shown:
            first, *more = text.splitlines()
            click.echo(f"{name:<{width}}{GAP}{first}")
            for line in more:
                click.echo(f"{'':<{width}}{GAP}{line}")

    def line(self, plain: Any, text: str) -> None:
        """One of many things that come one after the other."""
        click.echo(text if self.form == "table" else json_line(plain))
        sys.stdout.flush()

    def record(self, plain: Any) -> None:
        """One line of JSON, now: for programs that follow."""
        click.echo(json_line(plain))
        sys.stdout.flush()

    def said(self, plain: Any, text: str) -> None:
        """A sentence for people, a document for programs."""
        if self.form == "table":
            click.echo(text)
        else:
            self._emit(plain)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Say on a terminal that something takes its time."""
        if not self.draws_progress:
            yield
            return
        from rich.console import Console  # noqa: PLC0415 - only when drawing on a terminal

        with Console(stderr=True).status(what):
            yield

    def _emit(self, document: Any) -> None:
        if self.form == "ndjson":
            for item in document if isinstance(document, list) else [document]:
                click.echo(json_line(item))
        elif self.form == "yaml":
            import yaml  # noqa: PLC0415 - only for who asks for it

            click.echo(yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, allow_unicode=True), nl=False)
        else:
            click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def json_line(document: Any) -> str:
    """One line of JSON."""
    return msgspec.json.encode(document).decode()


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns: drawn on a terminal, plain in a pipe."""
    if sys.stdout.isatty():
        _draw(titles, rows)
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        click.echo(GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only when drawing on a terminal
    from rich.table import Table  # noqa: PLC0415 - only when drawing on a terminal
    from rich.text import Text  # noqa: PLC0415 - only when drawing on a terminal

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)

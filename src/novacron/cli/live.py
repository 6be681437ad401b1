"""Long work as a live line on a terminal: what it is, a bar, what goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")
BAR_WIDTH: Final = 28
REFRESH_HZ: Final = 4


class Picture(NamedTuple):
    """What is drawn at one moment."""

    title: str
    fraction: float  # of the bar; it never falls
    text: str
    note: str  # what to do about it


@contextmanager
def live_line(picture: Callable[[T], Picture]) -> Iterator[Callable[[T, str], None]]:
    """Draw while the context lasts; gives what shows a new state, and why the sight of it is lost (or nothing)."""
    from rich.console import Group  # noqa: PLC0415 - only when drawing on a terminal
    from rich.live import Live  # noqa: PLC0415 - only when drawing on a terminal
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - only when drawing on a terminal
    from rich.table import Table  # noqa: PLC0415 - only when drawing on a terminal
    from rich.text import Text  # noqa: PLC0415 - only when drawing on a terminal

    def drawn(value: T, lost: str) -> Group:
        now = picture(value)
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=now.fraction, width=BAR_WIDTH)
        line.add_row(bar, f"{now.fraction:4.0%}", now.text)
        note = f"{lost}; trying again" if lost else now.note
        return Group(Text(now.title, style="bold"), line, Text(note, style="yellow"))

    with Live(refresh_per_second=REFRESH_HZ, transient=True) as live:
        yield lambda value, lost: live.update(drawn(value, lost), refresh=True)

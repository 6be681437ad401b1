"""A migration as a live line on a terminal: route, bar, what goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from novacron.cli.progress import Bar, describe, options
from novacron.protocol.resources import Migration

BAR_WIDTH: Final = 28
REFRESH_HZ: Final = 4
Show = Callable[[Migration, str], None]  # the second: why the sight of it is lost, or nothing


@contextmanager
def live_line(context_flag: str = "") -> Iterator[Show]:
    """Draw while the context lasts; ``context_flag`` is what proposed commands carry."""
    from rich.console import Group  # noqa: PLC0415 - only when drawing on a terminal
    from rich.live import Live  # noqa: PLC0415 - only when drawing on a terminal
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - only when drawing on a terminal
    from rich.table import Table  # noqa: PLC0415 - only when drawing on a terminal
    from rich.text import Text  # noqa: PLC0415 - only when drawing on a terminal

    bar = Bar()

    def drawn(migration: Migration, lost: str) -> Group:
        fraction = bar.advance(migration)
        line = Table.grid(padding=(0, 1))
        route = Text(f"{migration.vm_name}  {migration.source_cluster} → {migration.target_cluster}", style="bold")
        line.add_row(
            ProgressBar(total=1.0, completed=fraction, width=BAR_WIDTH), f"{fraction:4.0%}", describe(migration)
        )
        note = lost and f"{lost}; trying again"
        return Group(route, line, Text(note or options(migration, context_flag), style="yellow"))

    with Live(refresh_per_second=REFRESH_HZ, transient=True) as live:
        yield lambda migration, lost: live.update(drawn(migration, lost), refresh=True)

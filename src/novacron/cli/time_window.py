"""Time windows as options: ``mon-fri 22:00-05:00 Europe/Berlin``."""

import re
from collections.abc import Callable
from typing import Any, Final, get_args

import click
import msgspec

from novacron.protocol.time_window import Day, TimeWindow

DAYS: Final = get_args(Day)
FORM: Final = re.compile(r"(?:(?P<days>[a-z,-]+) +)?(?P<opens>\d\d:\d\d)-(?P<closes>\d\d:\d\d)(?: +(?P<zone>\S+))?")
EXAMPLE: Final = "22:00-05:00, or mon-fri 22:00-05:00 Europe/Berlin"


class Window(click.ParamType[TimeWindow]):
    """Days, hours and a time zone, of which only the hours must be there."""

    name = "[days] hours [zone]"

    def convert(self, value: str | TimeWindow, param: click.Parameter | None, ctx: click.Context | None) -> TimeWindow:
        """The window; whether there is such a zone, the cluster knows."""
        if isinstance(value, TimeWindow):
            return value
        found = FORM.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is not a time window: write it like {EXAMPLE}", param, ctx)
        given = {name: text for name, text in found.groupdict().items() if text is not None}
        try:
            return msgspec.convert(given | {"days": _days(given.get("days", ""))}, TimeWindow)
        except (ValueError, msgspec.ValidationError):
            self.fail(f"{value!r} names a day or a time that there is not: write it like {EXAMPLE}", param, ctx)


def window_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command takes that moves VMs: ``window`` and ``overrun``."""
    hours = "Begin only in these hours: 22:00-05:00, or 'mon-fri 22:00-05:00 Europe/Berlin'. Without a zone: UTC."
    overrun = "Begin even what is not expected to be through when they are over."
    command = click.option("--overrun", is_flag=True, help=overrun)(command)
    return click.option("--window", type=Window(), help=hours)(command)


def window_of(window: TimeWindow | None, *, overrun: bool) -> TimeWindow | None:
    """Both options; raises UsageError for the second without the first."""
    if window is None and overrun:
        raise click.UsageError("--overrun is of a --window")
    return msgspec.structs.replace(window, overrun=overrun) if window else None


def _days(text: str) -> tuple[str, ...]:
    """``mon-fri,sun``; a range may go over the end of the week. Raises ValueError."""
    found: list[str] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found += [DAYS[day % len(DAYS)] for day in range(begin, end + 1 + (len(DAYS) if end < begin else 0))]
    return tuple(day for day in DAYS if day in found)

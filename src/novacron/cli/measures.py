"""Sizes, rates, shares and durations as options."""

from collections.abc import Callable

import click

from novacron.core.errors import InvalidInputError
from novacron.core.units import parse_duration_ms, parse_rate, parse_size


class Measure(click.ParamType[int]):
    """A number with a unit."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, in the unit that the API counts in."""
        if isinstance(value, int):
            return value
        try:
            return self._parse(value)
        except InvalidInputError as error:
            self.fail(error.cause, param, ctx)


class Bandwidth(click.ParamType[int | float]):
    """A rate in bytes a second (int), or a share of the link (float)."""

    name = "rate|percent"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """The one or the other."""
        if isinstance(value, int | float):
            return value
        if not value.endswith("%"):
            return RATE.convert(value, param, ctx)
        try:
            percent = float(value[:-1])
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:  # noqa: PLR2004 - percent
            self.fail(f"{value!r} is not a share of the link: write it like 60%", param, ctx)
        return percent / 100


SIZE = Measure("size", parse_size)
RATE = Measure("rate", parse_rate)
BANDWIDTH = Bandwidth()
DURATION = Measure("duration", parse_duration_ms)

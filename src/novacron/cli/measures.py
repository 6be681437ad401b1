"""Sizes, rates and durations as options."""

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


SIZE = Measure("size", parse_size)
RATE = Measure("rate", parse_rate)
DURATION = Measure("duration", parse_duration_ms)

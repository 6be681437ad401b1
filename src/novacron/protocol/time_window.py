"""The hours in which a migration may begin."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class TimeWindow(Struct, frozen=True):
    """From ``opens`` to ``closes`` by the clocks of ``zone`` (an IANA name), on ``days``; none: on every day.

    It closes on the next day when ``closes`` is not later than ``opens``; the day that counts is the one it opens on.
    ``overrun``: a migration begins even where it is not expected to be through when the window closes.
    """

    opens: TimeOfDay
    closes: TimeOfDay
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = ()
    overrun: bool = False

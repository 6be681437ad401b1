"""Which restore points of a VM stay: the rules, and what they say of each."""

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=10_000)]


class KeepRules(Struct, frozen=True, forbid_unknown_fields=True):
    """A point stays when one rule keeps it. Of hours, days, … only those count that have a point: the newest of each.

    ``zone`` (an IANA name) says when days begin.
    """

    days: Count = 30  # all that are at most so much older than the newest, in days of 24 hours
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0  # weeks begin on Monday
    monthly: Count = 0
    yearly: Count = 0
    minimum: Annotated[int, Meta(ge=1, le=10_000)] = 3  # the newest so many stay, whatever their age
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"


class RestorePoint(Struct, frozen=True):
    """What of a restore point counts for its staying."""

    id: str
    created_at: float  # by the clock of its node, seconds since 1970
    held: bool = False  # somebody has said that it stays


class Verdict(Struct, frozen=True):
    """Whether a restore point stays; ``why``: what keeps it, or else, of each rule, why it does not."""

    id: str
    stays: bool
    why: tuple[str, ...]

"""What a migration failed for, and whether it is worth another attempt.

Every attempt burns a fresh epoch; what had come is kept at the destination, so another attempt sends the rest.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from novacron.migration.errors import HandoverPendingError, NodeRestartedError, StalledError


class Failure(StrEnum):
    """Classes of failures, by what a person would do about them."""

    LINK = "link"  # the way between the two sites, or a process on it that is started again
    STALL = "stall"  # nothing moved, though the connections lived
    PEER = "peer"  # what was made ready over there has gone
    ROOM = "room"  # memory or disk is missing over there
    IO = "io"  # a disk or a QEMU gave up
    VERSION = "version"  # the two sides do not understand each other, or would not run the same machine
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Rule:
    """Back-off that doubles from ``first_wait_s`` up to ``longest_wait_s``; ``attempts`` in all, None: time decides."""

    first_wait_s: float
    longest_wait_s: float
    attempts: int | None = None


_CODES: Final = {
    "connection_broken": Failure.LINK,
    "connection_closed": Failure.LINK,
    "peer_unreachable": Failure.LINK,
    "node_unreachable": Failure.LINK,
    "unreachable": Failure.LINK,
    NodeRestartedError.code: Failure.LINK,
    StalledError.code: Failure.STALL,
    HandoverPendingError.code: Failure.PEER,
    "stale_epoch": Failure.PEER,
    "journal_contradiction": Failure.PEER,
    "qemu_died": Failure.PEER,
    "no_room": Failure.ROOM,
    "nbd": Failure.IO,
    "qmp": Failure.IO,
    "hypervisor": Failure.IO,
    "qemu_migration_failed": Failure.IO,
    "channel_protocol": Failure.VERSION,
    "content_malformed": Failure.VERSION,
    "frame": Failure.VERSION,
    "stream_refused": Failure.VERSION,
    "configuration_differs": Failure.VERSION,
    "machine_type_unknown": Failure.VERSION,
}
_RULES: Final = {
    Failure.LINK: Rule(1.0, 60.0),
    Failure.STALL: Rule(1.0, 60.0),
    Failure.PEER: Rule(1.0, 60.0),
    Failure.IO: Rule(5.0, 5.0, attempts=2),
}


def classify(code: str) -> Failure:
    """The class of an error's code."""
    return _CODES.get(code, Failure.OTHER)


def wait_s(failure: Failure, attempt: int) -> float | None:
    """How long after ``attempt`` (counted from 1) the next one begins; None: there is none."""
    rule = _RULES.get(failure)
    if rule is None or (rule.attempts is not None and attempt >= rule.attempts):
        return None
    doublings = min(attempt - 1, 16)  # far beyond every longest wait
    return min(rule.longest_wait_s, rule.first_wait_s * 2.0**doublings)

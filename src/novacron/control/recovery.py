"""What a migration failed for, and whether it is worth another attempt.

Every attempt burns a fresh epoch; what had come is kept at the destination, so another attempt sends the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from novacron.control.errors import NodeRefusedError
from novacron.migration.errors import GuestBusyError, HandoverPendingError, NodeRestartedError, StalledError
from novacron.protocol.migration import MigrationPolicy


class Failure(StrEnum):
    """Classes of failures, by what a person would do about them."""

    LINK = "link"  # the way between the two sites, or a process on it that is started again
    STALL = "stall"  # nothing moved, though the connections lived
    PEER = "peer"  # what was made ready over there has gone
    BUSY = "busy"  # the guest outran the link for longer than its policy waits
    NODE = "node"  # the node that was chosen over there cannot take it, and another one may
    ROOM = "room"  # memory or disk is missing over there
    IO = "io"  # a disk or a QEMU gave up
    VERSION = "version"  # the two sides do not understand each other, or would not run the same machine
    OTHER = "other"


OTHERWISE_EVERY: Final = 2  # attempts that broke on the link: then as many another way, and again as was asked for
STREAMS: Final = {0: "by as many connections as the link needs", 1: "by one connection"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Back-off that doubles from ``first_wait_s`` up to ``longest_wait_s``.

    ``attempts``: how many may fail for it before there is none any more; None: time decides.
    """

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
    GuestBusyError.code: Failure.BUSY,
    NodeRefusedError.code: Failure.NODE,
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
    Failure.NODE: Rule(1.0, 1.0, attempts=4),
    Failure.BUSY: Rule(1.0, 1.0, attempts=2),
}


def classify(code: str) -> Failure:
    """The class of an error's code."""
    return _CODES.get(code, Failure.OTHER)


def wait_s(failure: Failure, times: int) -> float | None:
    """How long after so many attempts that failed for the same the next one begins; None: there is none."""
    rule = _RULES.get(failure)
    if rule is None or (rule.attempts is not None and times >= rule.attempts):
        return None
    doublings = min(times - 1, 16)  # far beyond every longest wait
    return min(rule.longest_wait_s, rule.first_wait_s * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Way:
    """How the next attempt goes about it; ``differs`` says why it is not as was asked for."""

    wait_s: float
    policy: MigrationPolicy
    differs: str = ""


def next_way(failures: Sequence[Failure], asked: MigrationPolicy) -> Way | None:
    """The attempt after those that failed for ``failures``, in their order; None: a person must change something."""
    latest = failures[-1]
    wait = wait_s(latest, failures.count(latest))
    if wait is None or (latest is Failure.BUSY and _then(asked) == "fail"):
        return None
    policy, differs = asked, []
    if Failure.NODE in failures:
        differs.append("to another node, where there is one: the one that was chosen cannot take it")
    if Failure.BUSY in failures:
        policy, said = _calmed(policy)
        differs.append(said)
    broken = failures.count(Failure.LINK) + failures.count(Failure.STALL)
    if broken // OTHERWISE_EVERY % 2:
        streams = 0 if asked.streams == 1 else 1
        policy = msgspec.structs.replace(policy, streams=streams)
        differs.append(f"{broken} attempts broke on the way: {STREAMS[streams]}")
    return Way(wait, policy, "; ".join(differs))


def _then(asked: MigrationPolicy) -> str:
    return "postcopy" if asked.when_busy == "postcopy" else asked.busy_then


def _calmed(asked: MigrationPolicy) -> tuple[MigrationPolicy, str]:
    """What is done about a guest that has outrun the link, and in words."""
    match _then(asked):
        case "postcopy":
            policy = msgspec.structs.replace(asked, strategy="postcopy")
            return policy, "the guest outran the link: its memory follows it (--strategy postcopy)"
        case then:
            policy = msgspec.structs.replace(asked, when_busy=then)
            return policy, f"the guest outran the link for too long: --when-busy {then}"

"""What one migration shows of itself: how far it is, in one number that never falls, and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from novacron.cli.texts import moment, sizes, span
from novacron.core.units import format_rate, format_size
from novacron.protocol.migration import ByteSplit, MigrationSummary
from novacron.protocol.resources import Migration

COPIED: Final = 0.96  # of the bar is the copying; what follows has a share of its own, so that 100 % means done
REACHED: Final[Mapping[str, float]] = {
    "waiting": 0.0,
    "prepare": 0.0,
    "copy": 0.0,
    "switchover": COPIED,
    "ready": 0.97,
    "committed": 0.98,
    "following": 0.985,
    "verify": 0.99,
    "window": 1.0,
    "done": 1.0,
}
ARRIVED: Final = frozenset({"succeeded", "unverified"})
CANCELLABLE: Final = frozenset({"prepare", "copy", "switchover"})
WORDS: Final[Mapping[str, str]] = {
    "waiting": "waiting",
    "prepare": "getting the other side ready",
    "copy": "copying",
    "switchover": "switching over",
    "ready": "switching over",
    "committed": "handed over",
    "following": "running over there, memory follows",
    "verify": "verifying",
    "window": "done",
    "done": "done",
}


SHARED: Final = 0.99  # of a link: below it somebody else has some


@dataclass(slots=True)
class Bar:
    """How far a migration is. The plan grows with each round, so done / total alone would run backwards."""

    fraction: float = 0.0

    def advance(self, migration: Migration) -> float:
        """The fraction to show, 0 to 1; 1 only when it has arrived."""
        progress = migration.progress
        copied = progress.done_bytes / progress.total_bytes if progress.total_bytes else 0.0
        reached = REACHED.get(migration.phase, 0.0)
        now = max(min(copied, 1.0) * COPIED, reached)
        if migration.outcome not in ARRIVED:
            now = min(now, REACHED["verify"])
        self.fraction = max(self.fraction, 1.0 if migration.outcome in ARRIVED else now)
        return self.fraction


def describe(migration: Migration) -> str:
    """Phase, round, bytes, rates and what is left, in one line."""
    progress = migration.progress
    parts = [migration.outcome.replace("_", " ") or WORDS.get(migration.phase, migration.phase)]
    if migration.attempt > 1:
        parts[0] += f", attempt {migration.attempt}"
    if begins := begin_text(migration):
        parts[0] += f" {begins}"
    if progress.round:
        parts[0] += f", round {progress.round}"
    if progress.total_bytes:
        parts.append(f"{format_size(progress.done_bytes)} of {format_size(progress.total_bytes)}")
    if not migration.outcome and migration.phase == "copy":
        parts += _rates(migration)
    return " · ".join(parts)


def begin_text(migration: Migration) -> str:
    """When it begins that waits for its time, and why not before; empty of any other."""
    if migration.phase != "waiting" or migration.outcome:
        return ""
    return f"begins at {moment(migration.begins_at)}" + (f" ({migration.waits_for})" if migration.waits_for else "")


def _rates(migration: Migration) -> list[str]:
    progress = migration.progress
    parts = []
    if progress.wire_rate_bytes_s:
        shared = f", {progress.link_share:.0%} of what goes there" if progress.link_share < SHARED else ""
        parts.append(f"{format_rate(progress.wire_rate_bytes_s)} on the link{shared}")
    if progress.dirty_rate_bytes_s:
        parts.append(f"guest dirties {format_rate(progress.dirty_rate_bytes_s)}")
    if progress.throttle_percent:
        parts.append(f"its CPUs are throttled by {progress.throttle_percent}%")
    if progress.eta_ms is not None and progress.converging is not False:
        parts.append(f"{span(progress.eta_ms)} left")
    return parts


def options(migration: Migration, context_flag: str) -> str:
    """What can be done about a migration that stalls or does not converge; an empty text when it goes on well."""
    progress = migration.progress
    if (
        (progress.converging is not False and not progress.stalled_ms)
        or migration.outcome
        or migration.phase not in CANCELLABLE
    ):
        return ""
    note = progress.note or "will not converge at this rate"
    return f"{note}\n  novacron migration cancel {migration.id}{context_flag}"


def summary_facts(summary: MigrationSummary) -> tuple[tuple[str, str], ...]:
    """What it came to."""
    parts = sizes(("RAM", summary.ram_wire_bytes), ("disks", summary.disk_wire_bytes))
    return (
        ("total", span(summary.total_ms)),
        ("downtime", span(summary.downtime_ms)),
        ("rounds", str(summary.rounds)),
        ("guest content", format_size(summary.guest_bytes)),
        ("on the wire", f"{format_size(summary.wire_bytes)} ({parts})" if parts else format_size(summary.wire_bytes)),
        ("sent as", _split(summary.split)),
        ("average", format_rate(summary.bandwidth_bytes_s)),
        ("of the link", f"{summary.link_share:.0%} of what went there" if summary.link_share < SHARED else ""),
        ("verified", f"{'yes' if summary.verified else 'no'}: {summary.verdict}".removesuffix(": ")),
    )


def _split(split: ByteSplit) -> str:
    """Guest bytes by what was done with them."""
    return sizes(
        ("unchanged", split.unchanged_bytes),
        ("zero", split.zero_bytes),
        ("dedup", split.dedup_bytes),
        ("delta", split.delta_bytes),
        ("literal", split.literal_bytes),
    )

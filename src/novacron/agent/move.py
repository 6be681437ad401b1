"""One migration that leaves, as this process has seen it."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from novacron.core.errors import NovaCronError
from novacron.migration.handover import Attempt
from novacron.migration.meter import Meter
from novacron.migration.source import Source
from novacron.protocol.migration import MigrationPolicy, MigrationReport, MigrationSummary, Verdict


@dataclass(slots=True)
class Move:
    """``source`` lives until the guest has settled at one side: it holds as much memory as the guest."""

    meter: Meter
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)
    task: asyncio.Task[None] | None = None
    source: Source | None = None
    summary: MigrationSummary | None = None
    error: NovaCronError | None = None

    async def end(self) -> None:
        """What is under way breaks off; whoever asks for that says what becomes of it."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def sum_up(self, verdict: Verdict, now: float) -> None:
        """The guest runs over there; ``now`` is the clock's monotonic time."""
        if self.source is not None:
            self.meter.resumed_at = self.meter.resumed_at or now
            self.summary = self.source.summary(verdict)
        else:
            self.meter.note = "the node was restarted on the way: what was counted before is not known"
            self.summary = self.meter.summary(guest_bytes=0, wire_bytes=0, verdict=verdict)


def report(attempt: Attempt, move: Move | None, notes: tuple[str, ...]) -> MigrationReport:
    """The source's word; of an attempt of an earlier life only what the journal knows."""
    known = MigrationReport(
        attempt.migration_id,
        attempt.vm_id,
        attempt.epoch,
        "source",
        str(attempt.state),
        handed_over_at=attempt.handed_over_at,
        notes=notes,
    )
    if move is None:
        return known
    error = move.error
    return msgspec.structs.replace(
        known,
        progress=move.meter.progress(),
        summary=move.summary,
        error_code=error.code if error else "",
        error_cause=error.cause if error else "",
        error_next=error.next_command if error else "",
    )

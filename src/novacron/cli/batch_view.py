"""How a batch is shown, and followed."""

from collections.abc import Callable, Iterable
from typing import Final

from novacron.cli.errors import PartlyDoneError, WorkFailedError
from novacron.cli.follow import View
from novacron.cli.kinds import BATCHES
from novacron.cli.live import Picture
from novacron.cli.progress import COPIED, WORDS
from novacron.cli.texts import moment, span
from novacron.protocol.resources import Batch, BatchMove

MOVED: Final = frozenset({"succeeded", "rolled_back", "unverified"})
NO_FAILURE: Final = frozenset({"", "succeeded", "rolled_back", "stays"})
NAMED: Final = 3  # causes in one sentence; the batch itself has them all


def route(batch: Batch) -> str:
    """From where to where."""
    to = f"{batch.target_cluster}/{batch.target_node}" if batch.target_node else batch.target_cluster
    return f"{batch.drains or f'{len(batch.moves)} VMs'} → {to}"


def outcome(batch: Batch) -> str:
    """As people read it."""
    return "done in part" if batch.outcome == "partial" else batch.outcome


def describe(batch: Batch) -> str:
    """How many have moved, and what goes on, in one line."""
    moves = [move for move in batch.moves if move.outcome != "stays"]
    now = [move for move in moves if move.migration_id and not move.outcome]
    parts = [f"{_count(moves, MOVED)} of {len(moves)} moved"]
    parts += [f"{count} {word}" for word in ("failed", "cancelled") if (count := _count(moves, {word}))]
    parts += [f"{move.vm_name} {WORDS.get(move.phase, move.phase)}" for move in now]
    waiting = sum(not move.migration_id and not move.outcome for move in moves)
    parts += [f"{waiting} waiting"] if waiting else []
    if batch.begins_at and not batch.outcome:
        parts.append(f"the time window opens at {moment(batch.begins_at)}")
    return " · ".join([f"{outcome(batch)}: {parts[0]}" if batch.outcome else parts[0], *parts[1:]])


def move_lines(batch: Batch) -> str:
    """A line a VM, and under it what to do about it."""
    width = max((len(move.vm_name) for move in batch.moves), default=0)
    return "\n".join(line for move in batch.moves for line in _lines(move, width))


def _lines(move: BatchMove, width: int) -> Iterable[str]:
    state = move.outcome.replace("_", " ") or WORDS.get(move.phase, move.phase)
    cause = f": {move.problem.cause}" if move.problem else ""
    if move.predicted and not move.outcome:
        state += f" (expected to take {span(move.predicted.total_ms.value)})"
    yield f"{move.vm_name:<{width}}  {state}{cause}"
    if move.problem and move.problem.next_command:
        yield f"{'':<{width}}  next: {move.problem.next_command}"


def _count(moves: Iterable[BatchMove], outcomes: Iterable[str]) -> int:
    return sum(move.outcome in outcomes for move in moves)


def _pictures(_context_flag: str) -> Callable[[Batch], Picture]:
    reached = 0.0

    def picture(batch: Batch) -> Picture:
        nonlocal reached
        reached = max(reached, _fraction(batch))
        causes = [move.problem.cause for move in batch.moves if move.problem and not move.outcome]
        return Picture(route(batch), reached, describe(batch), causes[0] if causes else "")

    return picture


def _fraction(batch: Batch) -> float:
    """Of what there is to move, by what it was expected to cost."""
    moves = [move for move in batch.moves if move.outcome != "stays"]
    total = sum(move.predicted_bytes for move in moves)
    return sum(move.predicted_bytes * _share(move) for move in moves) / total if total else 0.0


def _share(move: BatchMove) -> float:
    if move.outcome:
        return 1.0 if move.outcome in MOVED else 0.0
    return COPIED * min(1.0, move.done_bytes / move.total_bytes) if move.total_bytes else 0.0


def _facts(batch: Batch, _context_flag: str) -> Iterable[tuple[str, str]]:
    return (("batch", route(batch)), ("outcome", describe(batch)), ("VMs", move_lines(batch)))


def _judge(batch: Batch) -> None:
    """Raises PartlyDoneError or WorkFailedError, unless every VM has moved that was to."""
    if batch.outcome == "succeeded":
        return
    look = f"novacron batch show {batch.id}"
    failed = [move for move in batch.moves if move.outcome not in NO_FAILURE]
    named = "; ".join(
        f"{move.vm_name}: {move.problem.cause if move.problem else move.outcome}" for move in failed[:NAMED]
    )
    cause = f"{len(failed)} of {len(batch.moves)} VMs did not move well: {named}"
    if batch.outcome == "partial":
        raise PartlyDoneError(cause, next_command=look)
    raise WorkFailedError(cause, code=f"batch_{batch.outcome}", next_command=look)


BATCH: Final = View(
    word="batch",
    kind=BATCHES,
    outcome=lambda batch: batch.outcome,
    goes_on_as=lambda _: None,
    pictures=_pictures,
    facts=_facts,
    judge=_judge,
)

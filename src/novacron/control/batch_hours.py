"""A batch and its time window: whether it is open, and which of the moves that wait are through before it closes."""

import msgspec

from novacron.control import hours, moves
from novacron.control.errors import WindowShortError
from novacron.control.kinds import BATCHES
from novacron.core.ids import BatchId
from novacron.database.database import Transaction
from novacron.protocol.resources import Batch, BatchMove, Problem
from novacron.protocol.time_window import TimeWindow


def is_open(tx: Transaction, batch_id: BatchId, window: TimeWindow | None, now: float) -> bool:
    """Whether moves may begin now; the record says when the window opens else."""
    wait = hours.wait_for(window, now)
    batch = BATCHES.get(tx, batch_id).value
    _put(tx, batch, msgspec.structs.replace(batch, begins_at=wait.begins_at if wait else 0.0))
    return wait is None


def fit(tx: Transaction, batch_id: BatchId, window: TimeWindow | None, now: float) -> None:
    """Put off what would not be through before the window closes; what does not fit into a whole one fails."""
    batch = BATCHES.get(tx, batch_id).value
    fitted = tuple(_fitted(move, window, now) if moves.waits(move) else move for move in batch.moves)
    _put(tx, batch, msgspec.structs.replace(batch, moves=fitted))


def _fitted(move: BatchMove, window: TimeWindow | None, now: float) -> BatchMove:
    if move.predicted is None:  # its migration looks at it again, and says what is wrong
        return move
    try:
        wait = hours.wait_for_room(window, move.predicted, now)
    except WindowShortError as error:
        return moves.ended(move, "failed", Problem(error.code, error.cause, error.next_command))
    if wait is not None:
        return move if moves.is_put_off(move) else moves.put_off(move, wait.why)
    return msgspec.structs.replace(move, problem=None) if moves.is_put_off(move) else move


def _put(tx: Transaction, batch: Batch, changed: Batch) -> None:
    if changed != batch:
        BATCHES.put(tx, changed, named=False)

"""The moves of a batch as values: how one begins, follows its migration, and ends; what all of them come to."""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from novacron.control.cost import predict_bytes
from novacron.control.unverified import ROLLED_BACK, UNVERIFIED
from novacron.protocol.resources import Batch, BatchMove, Migration, Problem, Vm

WAITING, HELD = "waiting", "held"  # phases before there is a migration; an attempt waits for its time, too
WINDOW: Final = "window"
STAYS: Final = "stays"
PUT_OFF: Final = "window_next"  # code of the problem of a move that waits for the next time window
MOVED: Final = frozenset({"succeeded", "rolled_back"})


def under_way(move: BatchMove) -> bool:
    """Whether it has a migration that is not over, nor waits for its time after one that broke."""
    return move.migration_id is not None and move.phase != WAITING and not move.outcome


def of_vm(vm: Vm, source_node: str) -> BatchMove:
    """A VM that waits for its turn."""
    return BatchMove(vm.id, vm.name, source_node, predict_bytes(vm.spec))


def held(move: BatchMove, cause: str, next_command: str) -> BatchMove:
    """One that cannot begin yet."""
    return msgspec.structs.replace(move, phase=HELD, problem=Problem("vm_busy", cause, next_command))


def staying(vm: Vm, source_node: str, next_command: str) -> BatchMove:
    """One that does not run: only what runs, or is paused, moves."""
    cause = f"VM {vm.name} is {vm.state}, and only running VMs move: it stays on {source_node}"
    return ended(of_vm(vm, source_node), STAYS, Problem("vm_stays", cause, next_command))


def followed(move: BatchMove, migration: Migration) -> BatchMove:
    """After the record of its migration."""
    progress, problem, outcome = migration.progress, migration.problem, migration.outcome
    if outcome == ROLLED_BACK and problem is not None:
        outcome = UNVERIFIED  # nobody had asked for the way back
    return msgspec.structs.replace(
        move,
        migration_id=migration.id,
        phase=migration.phase,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        outcome=outcome,
        problem=problem,
    )


def ended(move: BatchMove, outcome: str, problem: Problem | None = None) -> BatchMove:
    """One that has ended without a word of its migration."""
    return msgspec.structs.replace(move, outcome=outcome, problem=problem)


def in_order(moves: Iterable[BatchMove]) -> tuple[BatchMove, ...]:
    """What is through soonest first: most of the VMs have moved soon, and one that takes long keeps nobody waiting.

    Those of which nothing is told come last, the smallest first.
    """
    return tuple(sorted(moves, key=lambda move: (_takes_ms(move), move.predicted_bytes, move.vm_name)))


def _takes_ms(move: BatchMove) -> float:
    return move.predicted.total_ms.value if move.predicted else math.inf


def waits(move: BatchMove) -> bool:
    """Whether it waits for its turn."""
    return move.phase == WAITING and not move.migration_id and not move.outcome


def put_off(move: BatchMove, cause: str) -> BatchMove:
    """One that waits for the next time window."""
    return msgspec.structs.replace(move, problem=Problem(PUT_OFF, cause))


def is_put_off(move: BatchMove) -> bool:
    """Whether it does."""
    return waits(move) and move.problem is not None and move.problem.code == PUT_OFF


def over(batch: Batch) -> bool:
    """Whether nothing moves any more; a node that is drained may be switched off then, so windows have closed too."""
    return all(move.outcome and not (batch.drains and move.phase == WINDOW) for move in batch.moves)


def outcome_of(batch: Batch) -> str:
    """What the moves come to. A VM that stays is no failure: it was never to move."""
    outcomes = {move.outcome for move in batch.moves} - {STAYS}
    if outcomes <= MOVED and batch.problem is None:
        return "succeeded"
    if batch.cancelling:
        return "cancelled"
    return "partial" if outcomes & {*MOVED, UNVERIFIED} else "failed"

"""What a workflow is: named steps, each with an undo or the reason why it has none."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from novacron.database.database import Transaction

T = TypeVar("T")
Json = dict[str, Any]


class StepContext(Protocol):
    """What a step is given."""

    job_id: str
    subject: str
    input: Json
    results: dict[str, Json]  # of the steps before, by name
    fence_term: int
    error_code: str  # of the failure that is being undone; empty while the job goes forward
    error_cause: str
    error_next: str

    async def commit(self, work: Callable[[Transaction], T]) -> T:
        """Write to the cluster's database, unless another process has taken this job over (LeaseLostError)."""
        ...

    async def check_cancel(self) -> None:
        """For a step that only waits: raises JobCancelledError when somebody has asked for the end."""
        ...


@dataclass(frozen=True, slots=True)
class Irreversible:
    """Why a step has no undo."""

    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """``do`` may run more than once and must do no harm by it; what it gives is kept for later steps.

    ``undo`` runs when a later step, or this one half-way, has failed. Past a step with ``point_of_no_return`` nothing
    is undone any more: later steps are tried again until they succeed.
    """

    name: str
    do: Callable[[StepContext], Awaitable[Json | None]]
    undo: Callable[[StepContext], Awaitable[None]] | Irreversible
    point_of_no_return: bool = False
    attempts: int = 4  # before the point of no return, of errors that are worth another try


@dataclass(frozen=True, slots=True)
class Workflow:
    """Steps in their order."""

    name: str
    steps: tuple[Step, ...]

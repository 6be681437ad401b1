"""How a checkpoint that is being made or restored is shown, and followed."""

from collections.abc import Callable, Iterable
from typing import Final

from novacron.cli.errors import WorkFailedError
from novacron.cli.follow import View
from novacron.cli.kinds import CHECKPOINTS
from novacron.cli.live import Picture
from novacron.cli.texts import span, work_text
from novacron.core.units import format_size
from novacron.protocol.resources import Checkpoint

ENDED: Final = frozenset({"ready"})


def describe(checkpoint: Checkpoint) -> str:
    """Its state, and how far it is, in one line."""
    return work_text(checkpoint.state, checkpoint.progress)


def _pictures(_context_flag: str) -> Callable[[Checkpoint], Picture]:
    reached = 0.0

    def picture(checkpoint: Checkpoint) -> Picture:
        nonlocal reached
        progress = checkpoint.progress
        if progress.total_bytes:
            reached = max(reached, min(1.0, progress.done_bytes / progress.total_bytes))
        return Picture(f"checkpoint of {checkpoint.vm_name}", reached, describe(checkpoint), "")

    return picture


def _facts(checkpoint: Checkpoint, context_flag: str) -> Iterable[tuple[str, str]]:
    facts = checkpoint.facts
    if facts is None:
        return
    new = f"{format_size(facts.new_bytes)} of {format_size(facts.read_bytes)}"
    yield "checkpoint", checkpoint.id
    yield "of", f"{checkpoint.vm_name}, which stood still for {span(facts.downtime_ms)}"
    yield "new", f"{new}, stored in {format_size(facts.stored_bytes)}"
    yield "restore it", f"novacron vm checkpoint restore {checkpoint.id}{context_flag}"


def _judge(checkpoint: Checkpoint) -> None:
    """Raises WorkFailedError, unless the last work on it ended well."""
    if (problem := checkpoint.problem) is not None:
        raise WorkFailedError(problem.cause, code=problem.code, next_command=problem.next_command)


CHECKPOINT: Final = View(
    word="vm checkpoint",
    kind=CHECKPOINTS,
    outcome=lambda checkpoint: checkpoint.state if checkpoint.state in ENDED else "",
    goes_on_as=lambda _: None,
    pictures=_pictures,
    facts=_facts,
    judge=_judge,
)

"""How a checkpoint that is being made or restored is shown, and followed."""

from collections.abc import Iterable
from typing import Final

from novacron.cli.follow import View
from novacron.cli.kinds import CHECKPOINTS
from novacron.cli.texts import span
from novacron.cli.work_view import judge, pictures
from novacron.core.units import format_size
from novacron.protocol.resources import Checkpoint

ENDED: Final = frozenset({"ready"})


def _facts(checkpoint: Checkpoint, context_flag: str) -> Iterable[tuple[str, str]]:
    facts = checkpoint.facts
    if facts is None:
        return
    new = f"{format_size(facts.new_bytes)} of {format_size(facts.read_bytes)}"
    yield "checkpoint", checkpoint.id
    yield "of", f"{checkpoint.vm_name}, which stood still for {span(facts.downtime_ms)}"
    yield "new", f"{new}, stored in {format_size(facts.stored_bytes)}"
    yield "restore it", f"novacron vm checkpoint restore {checkpoint.id}{context_flag}"


CHECKPOINT: Final = View(
    word="vm checkpoint",
    kind=CHECKPOINTS,
    outcome=lambda checkpoint: checkpoint.state if checkpoint.state in ENDED else "",
    goes_on_as=lambda _: None,
    pictures=pictures(lambda one: f"checkpoint of {one.vm_name}"),
    facts=_facts,
    judge=judge,
)

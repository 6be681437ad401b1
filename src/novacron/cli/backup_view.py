"""How a backup that is being made is shown, and followed."""

from collections.abc import Callable, Iterable
from typing import Final

from novacron.cli.errors import WorkFailedError
from novacron.cli.follow import View
from novacron.cli.kinds import BACKUPS
from novacron.cli.live import Picture
from novacron.cli.texts import work_text
from novacron.core.units import format_size
from novacron.protocol.resources import Backup

READY: Final = "ready"


def describe(backup: Backup) -> str:
    """Its state, and how far it is, in one line."""
    return work_text(backup.state, backup.progress)


def _pictures(_context_flag: str) -> Callable[[Backup], Picture]:
    reached = 0.0

    def picture(backup: Backup) -> Picture:
        nonlocal reached
        progress = backup.progress
        if progress.total_bytes:
            reached = max(reached, min(1.0, progress.done_bytes / progress.total_bytes))
        return Picture(f"backup of {backup.vm_name}", reached, describe(backup), "")

    return picture


def _facts(backup: Backup, _context_flag: str) -> Iterable[tuple[str, str]]:
    if (facts := backup.facts) is not None:
        yield "backup", backup.id
        yield "of", f"{backup.vm_name}, in {backup.repository_name}, consistent by {facts.consistency}"
        new = f"{format_size(facts.new_bytes)} of {format_size(facts.read_bytes)}"
        yield "new", f"{new}, stored in {format_size(facts.stored_bytes)}"


def _judge(backup: Backup) -> None:
    """Raises WorkFailedError, unless the last work on it ended well."""
    if (problem := backup.problem) is not None:
        raise WorkFailedError(problem.cause, code=problem.code, next_command=problem.next_command)


BACKUP: Final = View(
    word="backup",
    kind=BACKUPS,
    outcome=lambda backup: backup.state if backup.state == READY else "",
    goes_on_as=lambda _: None,
    pictures=_pictures,
    facts=_facts,
    judge=_judge,
)

"""How a repository that is worked on is shown, and followed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from novacron.cli.errors import FaultsFoundError, WorkFailedError
from novacron.cli.follow import View
from novacron.cli.kinds import REPOSITORIES
from novacron.cli.live import Picture
from novacron.cli.texts import moment, work_text
from novacron.core.units import format_size
from novacron.protocol.repository import CheckResult, PruneResult
from novacron.protocol.resources import Repository

READY: Final = "ready"
LOCKS: Final = {
    "made": "a key of the controller",
    "passphrase": "a passphrase",
    "file": "a key file",
    "recovery": "a recovery key",
    "open": "none",
}


def describe(repository: Repository) -> str:
    """Its state, and how far the work on it is, in one line."""
    return work_text(repository.state, repository.progress)


def lock_text(lock: str) -> str:
    """What opens it."""
    return LOCKS.get(lock, lock)


def checked_text(found: CheckResult) -> Iterator[str]:
    """What a check has found, a line each."""
    read = f", {format_size(found.read_bytes)} read" if found.read else ""
    yield f"{moment(found.at)}: {found.manifests} backups, {found.packs} packs{read}, {found.fault_count} faults"
    for fault in found.faults:
        of = f" (of {', '.join(fault.manifests)})" if fault.manifests else ""
        yield f"{fault.cause} ({fault.code}){of}"


def pruned_text(done: PruneResult) -> str:
    """What a prune has done."""
    removed = f"{done.removed_packs} packs removed ({format_size(done.removed_bytes)})"
    moved = f", {format_size(done.moved_bytes)} stored anew" if done.moved_bytes else ""
    return f"{moment(done.at)}: {removed}, {done.marked_packs} more marked{moved}"


def _pictures(_context_flag: str) -> Callable[[Repository], Picture]:
    phase, reached = "", 0.0

    def picture(repository: Repository) -> Picture:
        nonlocal phase, reached
        progress = repository.progress
        if progress.phase != phase:
            phase, reached = progress.phase, 0.0
        if progress.total_bytes:
            reached = max(reached, min(1.0, progress.done_bytes / progress.total_bytes))
        return Picture(f"repository {repository.name}", reached, describe(repository), "")

    return picture


def _facts(repository: Repository, _context_flag: str) -> Iterable[tuple[str, str]]:
    if (checked := repository.checked) is not None and checked.at >= repository.begun_at:
        yield "checked", "\n".join(checked_text(checked))
    if (pruned := repository.pruned) is not None and pruned.at >= repository.begun_at:
        yield "pruned", pruned_text(pruned)


def _judge(repository: Repository) -> None:
    """Raises WorkFailedError, FaultsFoundError, unless the last work on it ended well."""
    if (problem := repository.problem) is not None:
        raise WorkFailedError(problem.cause, code=problem.code, next_command=problem.next_command)
    checked = repository.checked
    if checked is not None and checked.at >= repository.begun_at and checked.fault_count:
        raise FaultsFoundError(
            f"{checked.fault_count} things of repository {repository.name} are not as they were stored",
            next_command=f"novacron repo show {repository.name}",
        )


REPOSITORY: Final = View(
    word="repo",
    kind=REPOSITORIES,
    outcome=lambda repository: READY if repository.state == READY else "",
    goes_on_as=lambda _: None,
    pictures=_pictures,
    facts=_facts,
    judge=_judge,
)

"""How a repository that is worked on is shown, and followed."""

from collections.abc import Iterable, Iterator
from typing import Final

from novacron.cli.errors import FaultsFoundError
from novacron.cli.follow import View
from novacron.cli.kinds import REPOSITORIES
from novacron.cli.texts import moment
from novacron.cli.work_view import judge, pictures
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


def _facts(repository: Repository, _context_flag: str) -> Iterable[tuple[str, str]]:
    if (checked := repository.checked) is not None and checked.at >= repository.begun_at:
        yield "checked", "\n".join(checked_text(checked))
    if (pruned := repository.pruned) is not None and pruned.at >= repository.begun_at:
        yield "pruned", pruned_text(pruned)


def _judge(repository: Repository) -> None:
    """Raises WorkFailedError, FaultsFoundError, unless the last work on it ended well."""
    judge(repository)
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
    pictures=pictures(lambda one: f"repository {one.name}"),
    facts=_facts,
    judge=_judge,
)

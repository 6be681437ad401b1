"""How a backup that is being made is shown, and followed."""

from collections.abc import Iterable
from typing import Final

from novacron.cli.follow import View
from novacron.cli.kinds import BACKUPS
from novacron.cli.work_view import judge, pictures
from novacron.core.units import format_size
from novacron.protocol.resources import Backup

READY: Final = "ready"


def _facts(backup: Backup, _context_flag: str) -> Iterable[tuple[str, str]]:
    if (facts := backup.facts) is not None:
        yield "backup", backup.id
        yield "of", f"{backup.vm_name}, in {backup.repository_name}, consistent by {facts.consistency}"
        new = f"{format_size(facts.new_bytes)} of {format_size(facts.read_bytes)}"
        yield "new", f"{new}, stored in {format_size(facts.stored_bytes)}"


BACKUP: Final = View(
    word="backup",
    kind=BACKUPS,
    outcome=lambda backup: backup.state if backup.state == READY else "",
    goes_on_as=lambda _: None,
    pictures=pictures(lambda one: f"backup of {one.vm_name}"),
    facts=_facts,
    judge=judge,
)

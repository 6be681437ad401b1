"""What becomes of a migration whose guest was not verified, or died within its window: values for its record."""

from typing import Final

import msgspec

from novacron.control import rollbacks
from novacron.control.kinds import MIGRATIONS
from novacron.core.ids import ClusterId, MigrationId
from novacron.core.units import format_moment
from novacron.database.database import Transaction
from novacron.protocol.migration import MigrationPolicy, MigrationReport
from novacron.protocol.resources import Migration, Problem

UNVERIFIED: Final = "unverified"  # an outcome: it has moved, and is not well there, or nobody can tell
ROLLED_BACK, TAKEN_OVER = "rolled_back", "taken_over"
CODE: Final = "guest_unverified"
DIED: Final = "guest_died"


def keep(migration: Migration, cause: str, code: str = CODE) -> Migration:
    """The guest stays where it has come to; a person decides."""
    said = f"VM {migration.vm_name} has moved, and is not verified: {cause}"
    problem = Problem(code, said, f"novacron migration rollback {migration.id}")
    return msgspec.structs.replace(migration, outcome=UNVERIFIED, problem=problem)


def fetching(migration: Migration, cause: str) -> Migration:
    """It has done nothing since it came: the one that was left behind goes on, once the other can not."""
    said = f"VM {migration.vm_name} was not verified, and goes back: {cause}"
    problem = Problem(CODE, said, f"novacron migration show {migration.id}")
    return msgspec.structs.replace(migration, outcome=UNVERIFIED, problem=problem)


def send_back(
    tx: Transaction, migration: Migration, policy: MigrationPolicy, cause: str, *, holder: ClusterId, own: bool
) -> Migration:
    """The way back begins by itself, in the transaction that says why; the records name each other."""
    begun = rollbacks.begin(tx, migration, policy, holder=holder, own=own)
    there = "" if own else f" --context {migration.target_cluster}"
    said = f"VM {migration.vm_name} was not verified, and is being fetched back: {cause}"
    problem = Problem(CODE, said, f"novacron migration watch {begun.rolled_back_by}{there}")
    return msgspec.structs.replace(begun, outcome=UNVERIFIED, problem=problem)


def gone_on(tx: Transaction, migration_id: MigrationId, report: MigrationReport, cause: str) -> None:
    """The guest died over there, and goes on at its source as it was at the hand-over."""
    migration = MIGRATIONS.get(tx, migration_id).value
    if migration.outcome == TAKEN_OVER:
        return
    since = format_moment(report.handed_over_at)
    said = (
        f"VM {migration.vm_name} died in {migration.target_cluster} ({cause}); it goes on in "
        f"{migration.source_cluster} as it was at {since}: what it has done since is lost"
    )
    problem = Problem(DIED, said, f"novacron vm show {migration.vm_name}")
    back = msgspec.structs.replace(migration, outcome=ROLLED_BACK, problem=problem, lost_since=report.handed_over_at)
    MIGRATIONS.put(tx, back, named=False)

"""The way back of a migration, put down with its job: asked for by a person, or because its guest was not verified."""

from typing import Any, Final

import msgspec

from novacron.control.kinds import MIGRATIONS
from novacron.core.ids import ClusterId, MigrationId, new_id
from novacron.database.database import Transaction
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Migration
from novacron.workflow import journal

FAILED: Final = "rollback_failed"  # code of the problem of a migration whose way back broke


def begin(tx: Transaction, migration: Migration, policy: MigrationPolicy, *, holder: ClusterId, own: bool) -> Migration:
    """Put down the way back; the same one when it was put down before and has not failed. The record, as written.

    ``holder`` is the cluster that has the VM now, ``own`` whether that is this one.
    """
    failed = migration.problem is not None and migration.problem.code == FAILED
    if migration.rolled_back_by is not None and not failed:
        return migration
    back = MigrationId(new_id("migration"))
    body: dict[str, Any] = {
        "vm_id": migration.vm_id,
        "rolls_back": migration.id,
        "migration_id": back,
        "holder": holder,
        "wanted_node": migration.source_node if own else "",
        "policy": msgspec.to_builtins(policy_back(policy)),
    }
    journal.submit(tx, new_id("job"), "rollback", f"/api/v1/migrations/{migration.id}", body)
    begun = msgspec.structs.replace(migration, rolled_back_by=back)
    MIGRATIONS.put(tx, begun, named=False)
    return begun


def policy_back(policy: MigrationPolicy) -> MigrationPolicy:
    """The same way, at once; but whatever comes of the guest, it stays: it would go to and fro for ever."""
    return msgspec.structs.replace(
        policy, verify="any", probe="", on_unverified="keep", verify_window_ms=0, window=None
    )

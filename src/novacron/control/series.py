"""How a migration went: what it told of itself, kept beside its record and written with it.

The points of a migration are evenly spread. When a long one has come to ``MOST_POINTS``, every second one goes and the
rest come half as often.
"""

from typing import Final

import msgspec

from novacron.control.kinds import MIGRATIONS
from novacron.core.ids import MigrationId
from novacron.database.database import Transaction
from novacron.protocol.migration import MigrationProgress
from novacron.protocol.resources import Migration, MigrationSeries, ProgressPoint

MOST_POINTS: Final = 500
FINEST_MS: Final = 250  # about as often as a node tells of it


def follow(tx: Transaction, known: Migration, followed: Migration, now: float) -> None:
    """Put the record of a migration that has gone on, and a point when its progress is another."""
    if followed == known:
        return
    MIGRATIONS.put(tx, followed, named=False)
    if followed.progress != known.progress:
        _add(tx, followed, now)


def series(tx: Transaction, reference: str) -> MigrationSeries:
    """The points of one migration; raises ResourceUnknownError."""
    migration_id = MIGRATIONS.get(tx, reference).value.id
    rows = tx.execute("SELECT at, progress FROM series WHERE migration_id = ? ORDER BY after_ms", (migration_id,))
    points = (ProgressPoint(at, msgspec.json.decode(body, type=MigrationProgress)) for at, body in rows)
    return MigrationSeries(tuple(points))


def _add(tx: Transaction, migration: Migration, now: float) -> None:
    """The latest word of each step of time stays."""
    after_ms = max(0, round((now - migration.started_at) * 1000))
    step_ms = _step_ms(after_ms)
    row = (migration.id, after_ms // step_ms * step_ms, now, msgspec.json.encode(migration.progress))
    tx.execute("INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?)", row)
    if step_ms > FINEST_MS:
        _thin(tx, migration.id, step_ms)


def _thin(tx: Transaction, migration_id: MigrationId, step_ms: int) -> None:
    tx.execute("DELETE FROM series WHERE migration_id = ? AND after_ms % ? != 0", (migration_id, step_ms))


def _step_ms(after_ms: int) -> int:
    step_ms = FINEST_MS
    while after_ms >= step_ms * MOST_POINTS:
        step_ms *= 2
    return step_ms

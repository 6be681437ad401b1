"""The turn of an attempt: after a while when the one before it broke, and inside its time window."""

from typing import Final

import msgspec

from novacron.control import hours
from novacron.control.hours import Wait
from novacron.control.kinds import MIGRATIONS
from novacron.control.migrate_job import MigrateJob
from novacron.control.moves import WAITING
from novacron.core.clock import Clock
from novacron.database.database import Database, Transaction
from novacron.workflow.definition import StepContext

LOOK_EVERY_S: Final = 0.5  # whether it was cancelled


class Turn:
    """When it comes stands in the record, so that it outlives this process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def come(self, context: StepContext) -> None:
        """Wait until it has; raises JobCancelledError."""
        job = MigrateJob(context)
        while (left_s := await self._left_s(context)) > 0:
            await context.check_cancel()
            await self._clock.sleep(min(left_s, LOOK_EVERY_S))
        await context.commit(lambda tx: _leave(tx, job))

    async def put_off(self, context: StepContext, wait: Wait) -> None:
        """It waits, and its record says for what."""
        migration_id = MigrateJob(context).migration_id

        def put_off(tx: Transaction) -> None:
            waits = msgspec.structs.replace(
                MIGRATIONS.get(tx, migration_id).value, phase=WAITING, begins_at=wait.begins_at, waits_for=wait.why
            )
            MIGRATIONS.put(tx, waits, named=False)

        await context.commit(put_off)

    async def _left_s(self, context: StepContext) -> float:
        """As the record says; but a window that nobody was there to see has passed."""
        job, now = MigrateJob(context), self._clock.now()
        record = (await self._database.read(lambda tx: MIGRATIONS.get(tx, job.migration_id))).value
        if record.begins_at <= now and (wait := hours.wait_for(job.wanted.policy.window, now)) is not None:
            await self.put_off(context, wait)
            return wait.begins_at - now
        return record.begins_at - now


def _leave(tx: Transaction, job: MigrateJob) -> None:
    migration = MIGRATIONS.get(tx, job.migration_id).value
    if migration.phase == WAITING:
        MIGRATIONS.put(tx, msgspec.structs.replace(migration, phase="prepare", waits_for=""), named=False)

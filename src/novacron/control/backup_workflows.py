"""Making and removing a backup, as durable jobs. The node works; the job asks how far it is."""

from typing import Final

import msgspec

from novacron.control.backups import READY
from novacron.control.kinds import BACKUPS
from novacron.control.nodes import Nodes
from novacron.control.reported import raise_failure
from novacron.control.repositories import kept_place
from novacron.control.secrets import Secrets
from novacron.core.clock import Clock
from novacron.core.ids import BackupId, NodeId, VmId
from novacron.database.database import Database, Transaction
from novacron.protocol.backup import BackupFacts, BackupOrder, BackupRef, BackupRemoval, BackupReport, RepositoryPlace
from novacron.protocol.checkpoint import DONE, WorkProgress
from novacron.protocol.node import Nothing
from novacron.protocol.resources import Problem
from novacron.workflow.definition import Irreversible, Json, Step, StepContext, Workflow

LOOK_EVERY_S: Final = 0.3
PATIENCE: Final = 20  # looks at a node that does not answer: some minutes


class BackupWorkflows:
    """``backup.run`` and ``backup.delete``."""

    def __init__(self, database: Database, nodes: Nodes, kept: Secrets, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._secrets = kept
        self._clock = clock

    def workflows(self) -> tuple[Workflow, ...]:
        """Both, with their steps in order."""
        run = (
            Step("reserve", self._reserve, undo=self._forget),
            Step("store", self._store, undo=self._take_back, attempts=PATIENCE),
            Step("record", self._record, undo=Irreversible("the last step has nothing after it")),
        )
        delete = (
            Step("remove", self._remove, undo=self._free, attempts=PATIENCE),
            Step("forget", self._forget, undo=Irreversible("the backup is gone")),
        )
        return Workflow("backup.run", run), Workflow("backup.delete", delete)

    async def _reserve(self, _: StepContext) -> None:
        """The record was put down with the job; here is its undo."""

    async def _forget(self, context: StepContext) -> None:
        def forget(tx: Transaction) -> None:
            if BACKUPS.find(tx, _id(context)) is not None:
                BACKUPS.delete(tx, _id(context))

        await context.commit(forget)

    async def _store(self, context: StepContext) -> Json:
        """Ask until it is whole: a node that has started anew begins again. Raises what it failed for."""
        given = context.input
        order = BackupOrder(
            _id(context),
            VmId(given["vm_id"]),
            await self._place(context),
            rate_bytes_s=given["rate_bytes_s"],
            freeze=given["freeze"],
            full=given["full"],
        )
        while True:
            report = await self._nodes.call(_node(context), "backup.create", order, BackupReport)
            raise_failure(report)
            if report.state == DONE:
                facts: Json = msgspec.to_builtins(report.facts)
                return facts
            await self._wait(context, report.progress)

    async def _wait(self, context: StepContext, progress: WorkProgress) -> None:
        """Note how far it is; raises JobCancelledError when nobody wants it any more."""
        await context.check_cancel()
        await context.commit(lambda tx: _note(tx, context, progress))
        await self._clock.sleep(LOOK_EVERY_S)

    async def _take_back(self, context: StepContext) -> None:
        """The VM is what it was; nothing of it stays in the repository."""
        await self._nodes.call(_node(context), "backup.cancel", BackupRef(_id(context)), Nothing)
        await self._remove(context)

    async def _remove(self, context: StepContext) -> None:
        removal = BackupRemoval(_id(context), await self._place(context))
        await self._nodes.call(_node(context), "backup.delete", removal, Nothing)

    async def _record(self, context: StepContext) -> None:
        facts = msgspec.convert(context.results["store"], BackupFacts)

        def record(tx: Transaction) -> None:
            known = BACKUPS.get(tx, _id(context)).value
            ready = msgspec.structs.replace(known, state=READY, facts=facts, progress=WorkProgress())
            BACKUPS.put(tx, ready, named=False)

        await context.commit(record)

    async def _free(self, context: StepContext) -> None:
        """It is there as before; what its removal failed for stays with it."""

        def free(tx: Transaction) -> None:
            if (found := BACKUPS.find(tx, _id(context))) is not None:
                problem = Problem(context.error_code, context.error_cause, context.error_next)
                BACKUPS.put(tx, msgspec.structs.replace(found.value, state=READY, problem=problem), named=False)

        await context.commit(free)

    async def _place(self, context: StepContext) -> RepositoryPlace:
        repository_id = context.input["repository_id"]
        return (await self._database.read(lambda tx: kept_place(self._secrets, tx, repository_id))).place


def _note(tx: Transaction, context: StepContext, progress: WorkProgress) -> None:
    known = BACKUPS.get(tx, _id(context)).value
    if known.progress != progress:
        BACKUPS.put(tx, msgspec.structs.replace(known, progress=progress), named=False)


def _id(context: StepContext) -> BackupId:
    return BackupId(context.input["backup_id"])


def _node(context: StepContext) -> NodeId:
    return NodeId(context.input["node_id"])

"""Making, checking and pruning a repository, as durable jobs. The node works; the job asks how far it is."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from novacron.control.kinds import REPOSITORIES
from novacron.control.nodes import Nodes
from novacron.control.reported import raise_failure
from novacron.control.repositories import READY, KeptPlace, kept_place
from novacron.control.secrets import Secrets
from novacron.core.clock import Clock
from novacron.core.ids import NodeId
from novacron.database.database import Database, Transaction
from novacron.protocol.checkpoint import DONE, WorkProgress
from novacron.protocol.node import Nothing
from novacron.protocol.repository import (
    CheckResult,
    Made,
    PruneResult,
    RepositoryCheck,
    RepositoryCreate,
    RepositoryPrune,
    RepositoryReport,
    RepositoryUnmake,
    RepositoryWorkRef,
)
from novacron.protocol.resources import Problem
from novacron.workflow.definition import Irreversible, Json, Step, StepContext, Workflow

LOOK_EVERY_S: Final = 0.3
PATIENCE: Final = 20  # looks at a node that does not answer: some minutes
LAST: Final = Irreversible("the last step has nothing after it")


class RepositoryWorkflows:
    """``repository.create``, ``repository.check`` and ``repository.prune``."""

    def __init__(self, database: Database, nodes: Nodes, kept: Secrets, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._secrets = kept
        self._clock = clock

    def workflows(self) -> tuple[Workflow, ...]:
        """All three, with their steps in order."""
        create = (
            Step("reserve", self._reserve, undo=self._forget),
            Step("make", self._make, undo=self._unmake, attempts=PATIENCE),
            Step("record", self._record_made, undo=LAST),
        )
        check = (
            Step("check", self._check, undo=self._give_up, attempts=PATIENCE),
            Step("record", self._record_checked, undo=LAST),
        )
        prune = (
            Step("prune", self._prune, undo=self._give_up, attempts=PATIENCE),
            Step("record", self._record_pruned, undo=LAST),
        )
        return (
            Workflow("repository.create", create),
            Workflow("repository.check", check),
            Workflow("repository.prune", prune),
        )

    async def _reserve(self, _: StepContext) -> None:
        """The record was put down with the job; here is its undo."""

    async def _forget(self, context: StepContext) -> None:
        def forget(tx: Transaction) -> None:
            if REPOSITORIES.find(tx, _id(context)) is not None:
                REPOSITORIES.delete(tx, _id(context))
            self._secrets.forget(tx, _id(context))

        await context.commit(forget)

    async def _make(self, context: StepContext) -> Json:
        kept, given = await self._kept(context), context.input
        order = RepositoryCreate(
            work_id=context.job_id,
            place=kept.place,
            repository_id=given["identity"],
            chunker=given["chunker"],
            recovery=kept.recovery,
            existing=given["existing"],
        )
        return await self._done(context, "repository.create", order, "made")

    async def _unmake(self, context: StepContext) -> None:
        """What was there before stays."""
        if context.input["existing"]:
            await self._end(context)
            return
        kept = await self._kept(context)
        order = RepositoryUnmake(context.job_id, kept.place, context.input["identity"])
        await self._nodes.call(_node(context), "repository.unmake", order, Nothing)

    async def _record_made(self, context: StepContext) -> None:
        """Its recovery key is known to nobody here from now on."""
        made = msgspec.convert(context.results["make"], Made)
        await self._end(context)

        def record(tx: Transaction) -> None:
            _put_ready(tx, context, made=made, warnings=made.traits.weaknesses())
            kept = KeptPlace(kept_place(self._secrets, tx, _id(context)).place)
            self._secrets.put(tx, _id(context), msgspec.msgpack.encode(kept))

        await context.commit(record)

    async def _check(self, context: StepContext) -> Json:
        order = RepositoryCheck(context.job_id, (await self._kept(context)).place, context.input["read"])
        return await self._done(context, "repository.check", order, "checked")

    async def _record_checked(self, context: StepContext) -> None:
        found = msgspec.convert({**context.results["check"], "at": self._clock.now()}, CheckResult)
        await self._end(context)
        await context.commit(lambda tx: _put_ready(tx, context, checked=found))

    async def _prune(self, context: StepContext) -> Json:
        order = RepositoryPrune(context.job_id, (await self._kept(context)).place, context.input["grace_s"])
        return await self._done(context, "repository.prune", order, "pruned")

    async def _record_pruned(self, context: StepContext) -> None:
        done = msgspec.convert({**context.results["prune"], "at": self._clock.now()}, PruneResult)
        await self._end(context)
        await context.commit(lambda tx: _put_ready(tx, context, pruned=done))

    async def _give_up(self, context: StepContext) -> None:
        """It may be used again; what the work failed for stays with it."""
        await self._end(context)
        failed = context.error_code
        problem = Problem(failed, context.error_cause, context.error_next) if failed else None
        await context.commit(lambda tx: _put_ready(tx, context, problem=problem))

    async def _end(self, context: StepContext) -> None:
        await self._nodes.call(_node(context), "repository.end", RepositoryWorkRef(context.job_id), Nothing)

    async def _kept(self, context: StepContext) -> KeptPlace:
        return await self._database.read(lambda tx: kept_place(self._secrets, tx, _id(context)))

    async def _done(self, context: StepContext, method: str, order: Struct, field: str) -> Json:
        """Ask until the node has done it: one that has started anew begins again. Raises what it failed for."""
        while True:
            report = await self._nodes.call(_node(context), method, order, RepositoryReport)
            raise_failure(report)
            if report.state == DONE:
                found: Json = msgspec.to_builtins(getattr(report, field))
                return found
            await self._wait(context, report.progress)

    async def _wait(self, context: StepContext, progress: WorkProgress) -> None:
        """Note how far it is; raises JobCancelledError when nobody wants it any more."""
        await context.check_cancel()
        await context.commit(lambda tx: _note(tx, context, progress))
        await self._clock.sleep(LOOK_EVERY_S)


def _note(tx: Transaction, context: StepContext, progress: WorkProgress) -> None:
    known = REPOSITORIES.get(tx, _id(context)).value
    if known.progress != progress:
        REPOSITORIES.put(tx, msgspec.structs.replace(known, progress=progress))


def _put_ready(tx: Transaction, context: StepContext, **found: Any) -> None:
    known = REPOSITORIES.get(tx, _id(context)).value
    REPOSITORIES.put(tx, msgspec.structs.replace(known, state=READY, progress=WorkProgress(), **found))


def _id(context: StepContext) -> str:
    identity: str = context.input["repository_id"]
    return identity


def _node(context: StepContext) -> NodeId:
    return NodeId(context.input["node_id"])

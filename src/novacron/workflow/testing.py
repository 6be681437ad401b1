"""For tests of workflows: every step is failed in turn, and every step is run twice.

The workflows under test run on the real runner and a real database; what they do to the world is up to the caller, who
is asked after each run whether the world is as it must be.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import new_id
from novacron.database.database import Database
from novacron.workflow import journal
from novacron.workflow.definition import Json, Step, StepContext, Workflow
from novacron.workflow.journal import ENDED, JobRecord
from novacron.workflow.runner import WorkflowRunner


class InjectedError(NovaCronError):
    """A failure that a test has put in."""

    code = "injected"


async def run_to_end(directory: Path, workflow: Workflow, body: Json, clock: Clock) -> JobRecord:
    """Run one job of ``workflow`` on a database of its own; how it ended."""
    database = await Database.open(str(directory / new_id("db")), [journal.SCHEMA])
    try:
        job = new_id("job")
        async with WorkflowRunner(database, [workflow], clock, seed=1) as runner:
            await runner.submit(job, workflow.name, "test", body)
            while (record := await database.read(lambda tx: journal.get(tx, job))).state not in ENDED:
                await database.changed()
            return record
    finally:
        await database.close()


async def fail_every_step(
    directory: Path, make: Callable[[], Workflow], body: Json, clock: Clock, check: Callable[[str], Awaitable[None]]
) -> None:
    """Once for each step: it does its work, then fails for good; ``check`` is called with its name after the undo."""
    for number, step in enumerate(make().steps):
        if any(s.point_of_no_return for s in make().steps[:number]):
            return
        workflow = make()
        steps = list(workflow.steps)
        steps[number] = replace(steps[number], do=_failing(steps[number]))
        record = await run_to_end(directory, replace(workflow, steps=tuple(steps)), body, clock)
        assert record.state == journal.FAILED, (step.name, record)  # noqa: S101 - this module is for tests
        await check(step.name)


async def repeat_every_step(
    directory: Path, make: Callable[[], Workflow], body: Json, clock: Clock, check: Callable[[str], Awaitable[None]]
) -> None:
    """Once for each step: it runs twice; ``check`` is called with its name after the end."""
    for number, step in enumerate(make().steps):
        workflow = make()
        steps = list(workflow.steps)
        steps[number] = replace(steps[number], do=_twice(steps[number]))
        record = await run_to_end(directory, replace(workflow, steps=tuple(steps)), body, clock)
        assert record.state == journal.DONE, (step.name, record)  # noqa: S101 - this module is for tests
        await check(step.name)


def _failing(step: Step) -> Callable[[StepContext], Awaitable[Json | None]]:
    async def do(context: StepContext) -> Json | None:
        await step.do(context)
        raise InjectedError(f"{step.name} was made to fail")

    return do


def _twice(step: Step) -> Callable[[StepContext], Awaitable[Json | None]]:
    async def do(context: StepContext) -> Json | None:
        await step.do(context)
        return await step.do(context)

    return do

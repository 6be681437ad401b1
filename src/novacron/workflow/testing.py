"""For tests of workflows: every step is failed in turn, and every step is run twice.

The workflows under test run on the real runner and a real database; what they do to the world is up to the caller, who
is asked after each run whether the world is as it must be.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final

from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.core.ids import new_id
from novacron.database.database import Database
from novacron.workflow import journal
from novacron.workflow.definition import Json, Step, StepContext, Workflow
from novacron.workflow.journal import ENDED, JobRecord
from novacron.workflow.runner import WorkflowRunner

LOOK_EVERY_S: Final = 0.01


class InjectedError(NovaCronError):
    """A failure that a test has put in."""

    code = "injected"


@dataclass(frozen=True, slots=True)
class Trial:
    """One fresh world: its database, the workflow that acts on it, and what must hold of it after a run."""

    database: Database
    workflow: Workflow
    body: Json
    check: Callable[[str], Awaitable[None]]  # given the name of the step that was failed or repeated


World = Callable[[], AbstractAsyncContextManager[Trial]]


async def run_to_end(database: Database, workflow: Workflow, body: Json, clock: Clock) -> JobRecord:
    """Run one job of ``workflow``; how it ended."""
    job = new_id("job")
    async with WorkflowRunner(database, [workflow], clock, seed=1) as runner:
        await runner.submit(job, workflow.name, "test", body)
        while (record := await database.read(lambda tx: journal.get(tx, job))).state not in ENDED:
            await clock.sleep(LOOK_EVERY_S)
        return record


async def fail_every_step(world: World, clock: Clock) -> None:
    """Once for each step before the point of no return: it does its work, then fails for good."""
    for number in await _numbers(world):
        async with world() as trial:
            steps = trial.workflow.steps
            if any(step.point_of_no_return for step in steps[: number + 1]):
                return
            record = await _run(trial, number, _failing(steps[number]), clock)
            assert record.state == journal.FAILED, (steps[number].name, record)  # noqa: S101 - this module is for tests
            await trial.check(steps[number].name)


async def repeat_every_step(world: World, clock: Clock) -> None:
    """Once for each step: it runs twice."""
    for number in await _numbers(world):
        async with world() as trial:
            name = trial.workflow.steps[number].name
            record = await _run(trial, number, _twice(trial.workflow.steps[number]), clock)
            assert record.state == journal.DONE, (name, record)  # noqa: S101 - this module is for tests
            await trial.check(name)


async def _numbers(world: World) -> range:
    async with world() as trial:
        return range(len(trial.workflow.steps))


async def _run(
    trial: Trial, number: int, do: Callable[[StepContext], Awaitable[Json | None]], clock: Clock
) -> JobRecord:
    steps = list(trial.workflow.steps)
    steps[number] = replace(steps[number], do=do)
    return await run_to_end(trial.database, replace(trial.workflow, steps=tuple(steps)), trial.body, clock)


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

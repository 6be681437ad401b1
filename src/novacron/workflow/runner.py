"""Runs jobs: one runner a process, any number of processes on one database.

A job is claimed under a lease. A process that dies loses the lease, and another takes the job over under a higher
fence term; what the dead one might still write is refused. Each step is journalled before and after.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self, TypeVar

import msgspec
import structlog

from novacron.core.clock import Clock
from novacron.core.errors import NovaCronError
from novacron.database.database import Database, Transaction
from novacron.workflow import journal
from novacron.workflow.definition import Irreversible, Json, Step, StepContext, Workflow
from novacron.workflow.errors import JobCancelledError, LeaseLostError, WorkflowError
from novacron.workflow.journal import CANCELLED, DONE, FAILED, RUNNING, UNDOING, Body, JobRecord

LEASE_S: Final = 3.0
LOOK_EVERY_S: Final = 0.5
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 10.0
T = TypeVar("T")
log = structlog.get_logger()


class _Context:
    """See ``definition.StepContext``."""

    def __init__(self, database: Database, job: JobRecord) -> None:
        self._database = database
        self._job = job
        self.job_id = job.id
        self.subject = job.subject
        self.input: Json = job.body.input
        self.results = dict(job.body.results)
        self.fence_term = job.fence_term
        self.error_code = job.body.error_code
        self.error_cause = job.body.error_cause
        self.error_next = job.body.error_next

    async def commit(self, work: Callable[[Transaction], T]) -> T:
        def fenced(tx: Transaction) -> T:
            journal.check_fence(tx, self._job)
            return work(tx)

        return await self._database.write(fenced)

    async def check_cancel(self) -> None:
        if (await self._database.read(lambda tx: journal.get(tx, self.job_id))).cancel:
            raise JobCancelledError("it was cancelled")


class WorkflowRunner:
    """Use as an async context manager; leaving it stops where it is, and another runner goes on."""

    def __init__(
        self, database: Database, workflows: Sequence[Workflow], clock: Clock, *, seed: int | None = None
    ) -> None:
        self._database = database
        self._workflows = {workflow.name: workflow for workflow in workflows}
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - spreads retries, guards nothing
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._looking, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, job_id: str, workflow: str, subject: str, body: Json) -> None:
        """Queue a job and begin at once."""
        await self._database.write(lambda tx: journal.submit(tx, job_id, workflow, subject, body))
        self.wake()

    def wake(self) -> None:
        """There is a job to be claimed."""
        self._wake.set()

    async def _look(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock.now()
            while job := await self._database.write(lambda tx: journal.claim(tx, now, LEASE_S)):  # noqa: B023 - run before it changes
                task = asyncio.create_task(self._keep(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            waits = {asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(LOOK_EVERY_S))}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _keep(self, job: JobRecord) -> None:
        """Run a job while its lease is renewed; a lost lease stops it at once."""
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(job))
                await self._run(job)
                renewing.cancel()
        except* LeaseLostError as errors:
            log.info("job_taken_over", job=job.id, cause=str(errors.exceptions[0]))

    async def _renew(self, job: JobRecord) -> None:
        while True:
            await self._clock.sleep(LEASE_S / 3)
            await self._database.write(lambda tx: journal.renew(tx, job, self._clock.now() + LEASE_S))

    async def _run(self, job: JobRecord) -> None:
        workflow = self._workflows.get(job.workflow)
        if workflow is None:
            error = WorkflowError(f"this version has no workflow {job.workflow!r}")
            await self._save(_failed(job, FAILED, error), "failed", "")
            return
        if job.state == RUNNING:
            job = await self._forward(workflow, job)
        if job.state == UNDOING:
            await self._backward(workflow, job)

    async def _forward(self, workflow: Workflow, job: JobRecord) -> JobRecord:
        """Step by step, until the end or a failure."""
        while job.step < len(workflow.steps):
            step = workflow.steps[job.step]
            passed = any(s.point_of_no_return for s in workflow.steps[: job.step])
            try:
                if not passed:
                    await _Context(self._database, job).check_cancel()
                await self._save(job, "begin", step.name)
                result = await self._try(step, job, forever=passed)
            except NovaCronError as error:
                if isinstance(error, LeaseLostError):
                    raise
                log.info("job_step_failed", job=job.id, step=step.name, cause=error.cause)
                return await self._save(
                    msgspec.structs.replace(_failed(job, UNDOING, error), step=job.step + 1), "failed", step.name
                )
            results = {**job.body.results, step.name: result or {}}
            body = msgspec.structs.replace(job.body, results=results)
            state = DONE if job.step + 1 == len(workflow.steps) else RUNNING
            job = msgspec.structs.replace(job, step=job.step + 1, body=body, state=state)
            await self._save(job, "end", step.name)
        return job

    async def _backward(self, workflow: Workflow, job: JobRecord) -> None:
        """Undo, the last first; an undo is tried until it succeeds."""
        while job.step:
            step = workflow.steps[job.step - 1]
            if not isinstance(step.undo, Irreversible):
                await self._retry(step.undo, job, attempts=None)
            job = msgspec.structs.replace(job, step=job.step - 1)
            await self._save(job, "undone", step.name)
        state = CANCELLED if job.body.error_code == JobCancelledError.code else FAILED
        await self._save(msgspec.structs.replace(job, state=state), state, "")

    async def _try(self, step: Step, job: JobRecord, *, forever: bool) -> Json | None:
        return await self._retry(step.do, job, attempts=None if forever else step.attempts)

    async def _retry(self, action: Callable[[StepContext], Awaitable[T]], job: JobRecord, *, attempts: int | None) -> T:
        """Until it succeeds; with ``attempts``, errors that are not worth another try end it, and so does the last."""
        wait_s, tried = FIRST_WAIT_S, 0
        while True:
            try:
                return await action(_Context(self._database, job))
            except LeaseLostError:
                raise
            except NovaCronError as error:
                tried += 1
                if attempts is not None and (not error.retryable or tried >= attempts):
                    raise
                log.info("job_step_again", job=job.id, cause=error.cause, wait_s=wait_s)
            except Exception as error:
                log.exception("job_step_fault", job=job.id)
                if attempts is not None:
                    raise WorkflowError(f"a fault of NovaCron itself: {type(error).__name__}: {error}") from error
            await self._clock.sleep(wait_s * self._random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _save(self, job: JobRecord, what: str, step: str) -> JobRecord:
        await self._database.write(lambda tx: journal.save(tx, job, self._clock.now(), what, step))
        return job


def _failed(job: JobRecord, state: str, error: NovaCronError) -> JobRecord:
    body: Body = msgspec.structs.replace(
        job.body, error_code=error.code, error_cause=error.cause, error_next=error.next_command
    )
    return msgspec.structs.replace(job, state=state, body=body)

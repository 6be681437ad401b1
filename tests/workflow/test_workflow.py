"""Sagas on a real database: undone in reverse, taken over, fenced."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from novacron.core.clock import SystemClock
from novacron.core.errors import ConflictError, UnreachableError
from novacron.core.ids import new_id
from novacron.database.database import Database
from novacron.workflow import journal
from novacron.workflow.definition import Irreversible, Step, Workflow
from novacron.workflow.errors import JobUnknownError, LeaseLostError
from novacron.workflow.runner import WorkflowRunner
from novacron.workflow.testing import Trial, fail_every_step, repeat_every_step, run_to_end

CLOCK = SystemClock()


class World:
    """What the steps of the test's workflow act on: a set of things that exist."""

    def __init__(self) -> None:
        self.things: set[str] = set()
        self.undone: list[str] = []
        self.hold = asyncio.Event()
        self.holding = asyncio.Event()
        self.fails = 0

    def workflow(self, *, last=None) -> Workflow:
        names = ("one", "two", "three")
        steps = tuple(Step(name, self.make(name), self.unmake(name)) for name in names)
        return Workflow("world", (*steps, last) if last else steps)

    def make(self, name):
        async def do(context):
            self.things.add(name)
            return {"made": name, "before": sorted(context.results)}

        return do

    def unmake(self, name):
        async def undo(_context):
            self.things.discard(name)
            self.undone.append(name)

        return undo


@pytest.fixture
def world():
    return World()


@asynccontextmanager
async def fresh_database(directory):
    database = await Database.open(str(directory / new_id("db")), [journal.SCHEMA])
    yield database
    await database.close()


@pytest.fixture
async def database(tmp_path):
    async with fresh_database(tmp_path) as database:
        yield database


async def ended(database, job="job"):
    while True:
        changed = asyncio.ensure_future(database.changed())
        await asyncio.sleep(0)  # it waits before the look: a change in between is not missed
        record = await database.read(lambda tx: journal.get(tx, job))
        if record.state in journal.ENDED:
            changed.cancel()
            return record
        await changed


async def test_steps_run_in_order_and_see_what_came_before(database, world):
    record = await run_to_end(database, world.workflow(), {}, CLOCK)
    assert record.state == "done"
    assert record.body.results["three"] == {"made": "three", "before": ["one", "two"]}
    assert world.things == {"one", "two", "three"}


async def test_whichever_step_fails_everything_is_undone(tmp_path):
    undone = []

    @asynccontextmanager
    async def fresh():
        world = World()

        async def nothing_left(_step):
            assert not world.things
            undone.extend(world.undone)

        async with fresh_database(tmp_path) as database:
            yield Trial(database, world.workflow(), {}, nothing_left)

    await fail_every_step(fresh, CLOCK)
    assert undone == ["one", "two", "one", "three", "two", "one"]


async def test_whichever_step_runs_twice_does_no_harm(tmp_path):
    checked = []

    @asynccontextmanager
    async def fresh():
        world = World()

        async def all_there(step):
            checked.append(step)
            assert world.things == {"one", "two", "three"}

        async with fresh_database(tmp_path) as database:
            yield Trial(database, world.workflow(), {}, all_there)

    await repeat_every_step(fresh, CLOCK)
    assert checked == ["one", "two", "three"]


async def test_an_error_worth_another_try_gets_one(database, world):
    async def flaky(_context):
        world.fails += 1
        if world.fails < 3:
            raise UnreachableError("not yet")

    record = await run_to_end(database, world.workflow(last=Step("last", flaky, Irreversible("nothing"))), {}, CLOCK)
    assert (record.state, world.fails) == ("done", 3)


async def test_past_the_point_of_no_return_nothing_is_undone(database, world):
    async def stubborn(_context):
        world.fails += 1
        if world.fails < 3:
            raise ConflictError("no")

    steps = (
        Step("commit", world.make("commit"), Irreversible("it is said"), point_of_no_return=True),
        Step("after", stubborn, Irreversible("forward only")),
    )
    record = await run_to_end(database, Workflow("world", steps), {}, CLOCK)
    assert (record.state, world.things, world.undone) == ("done", {"commit"}, [])


async def test_a_cancelled_job_is_undone(database, world):
    async def hold(_context):
        world.holding.set()
        await world.hold.wait()

    steps = (
        *world.workflow().steps,
        Step("hold", hold, Irreversible("nothing")),
        Step("x", world.make("x"), world.unmake("x")),
    )
    async with WorkflowRunner(database, [Workflow("world", steps)], CLOCK) as runner:
        await runner.submit("job", "world", "s", {})
        await world.holding.wait()
        await database.write(lambda tx: journal.request_cancel(tx, "job"))
        world.hold.set()
        record = await ended(database)
    assert (record.state, record.body.error_code, world.things) == ("cancelled", "cancelled", set())


async def test_a_job_whose_runner_died_is_taken_over_and_the_dead_one_is_fenced(database, world, monkeypatch):
    monkeypatch.setattr("novacron.workflow.runner.LEASE_S", 0.3)
    contexts = []

    async def hold(context):
        contexts.append(context)
        world.holding.set()
        if len(contexts) == 1:
            await world.hold.wait()
        return {}

    workflow = Workflow("world", (*world.workflow().steps, Step("hold", hold, Irreversible("nothing"))))
    async with WorkflowRunner(database, [workflow], CLOCK) as first:
        await first.submit("job", "world", "s", {})
        await world.holding.wait()
    async with WorkflowRunner(database, [workflow], CLOCK):
        record = await ended(database)
    assert (record.state, record.fence_term) == ("done", 2)
    with pytest.raises(LeaseLostError):
        await contexts[0].commit(lambda tx: tx.execute("DELETE FROM jobs"))


async def test_two_runners_race_for_many_jobs_and_each_runs_once(database):
    ran = []

    async def note(context):
        ran.append(context.job_id)

    workflow = Workflow("note", (Step("note", note, Irreversible("nothing")),))
    async with WorkflowRunner(database, [workflow], CLOCK) as one, WorkflowRunner(database, [workflow], CLOCK) as two:
        for number in range(40):
            await (one if number % 2 else two).submit(f"job-{number}", "note", "s", {})
        await asyncio.gather(*(ended(database, f"job-{n}") for n in range(40)))
    assert sorted(ran) == sorted(f"job-{n}" for n in range(40))


async def test_a_job_submitted_twice_is_one_job(database, world):
    async with WorkflowRunner(database, [world.workflow()], CLOCK) as runner:
        await runner.submit("job", "world", "s", {})
        await runner.submit("job", "world", "s", {})
        await ended(database)
    assert len(await database.read(journal.list_jobs)) == 1


async def test_an_unknown_workflow_and_an_unknown_job_are_told(database, world):
    async with WorkflowRunner(database, [world.workflow()], CLOCK) as runner:
        await runner.submit("job", "other", "s", {})
        record = await ended(database)
    assert "no workflow 'other'" in record.body.error_cause
    with pytest.raises(JobUnknownError):
        await database.read(lambda tx: journal.get(tx, "nothing"))


async def test_a_fault_in_a_step_is_an_error_with_a_code(database, world):
    async def broken(_context):
        raise ZeroDivisionError("oh")

    record = await run_to_end(database, world.workflow(last=Step("last", broken, Irreversible("nothing"))), {}, CLOCK)
    assert (record.state, record.body.error_code) == ("failed", "workflow")
    assert "ZeroDivisionError" in record.body.error_cause

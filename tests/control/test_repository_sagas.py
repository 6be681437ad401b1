"""Every step of the sagas of repositories is failed in turn, and run twice; the world must come out whole."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest

from novacron.control.kinds import REPOSITORIES, SCHEMA
from novacron.control.repositories import KeptPlace, kept_place
from novacron.control.repository_workflows import RepositoryWorkflows
from novacron.control.secrets import Secrets
from novacron.core.clock import SystemClock
from novacron.core.ids import NodeId, RepositoryId, new_id
from novacron.database.database import Database
from novacron.protocol.backup import RepositoryPlace
from novacron.protocol.node import Nothing
from novacron.protocol.repository import CheckResult, Made, PruneResult, RepositoryReport
from novacron.protocol.resources import Repository
from novacron.repository.traits import Traits
from novacron.workflow.testing import Trial, fail_every_step, repeat_every_step

CLOCK = SystemClock()
NODE, REPOSITORY = NodeId("node-1"), RepositoryId("repository-1")
PLACE = RepositoryPlace(address="/srv/backups", how="file", secret=b"k" * 32)
MADE = Made("0" * 32, "fixed-256k", Traits(conditional_create=False, ranged_reads=True, probed_at=1.0), True)
CHECKED = CheckResult(read=True, manifests=1, pages=1, chunks=1, packs=1, loose_packs=0, read_bytes=1)


@dataclass
class Left:
    """What there is after a run in which ``step`` was failed or repeated."""

    step: str
    node: "FakeNode"
    found: Repository | None
    place: KeptPlace | None


class FakeNode:
    """What lies at the address, and the work that the node knows."""

    def __init__(self, *, existing: bool) -> None:
        self.there = existing
        self.works: set[str] = set()
        self.recovery = ""

    async def call(self, _node_id, method, request, _answer):
        return getattr(self, method.replace(".", "_"))(request)

    def repository_create(self, order):
        self.there, self.recovery = True, order.recovery
        return self._done(order, made=MADE)

    def repository_check(self, order):
        return self._done(order, checked=CHECKED)

    def repository_prune(self, order):
        return self._done(order, pruned=PruneResult(1, 2, 3, 4))

    def repository_unmake(self, order):
        self.there = False
        return self.repository_end(order)

    def repository_end(self, ref):
        self.works.discard(ref.work_id)
        return Nothing()

    def _done(self, order, **result):
        assert order.place == PLACE
        self.works.add(order.work_id)
        return RepositoryReport(order.work_id, "done", **result)


@pytest.fixture
def world(tmp_path):
    """A repository in some state, and the job that works on it."""

    def make(number, state, outcome, *, existing=False):
        @asynccontextmanager
        async def fresh():
            node = FakeNode(existing=existing or state != "creating")
            database = await Database.open(str(tmp_path / new_id("db")), SCHEMA)
            kept = Secrets(tmp_path)
            repository = Repository(REPOSITORY, "backups", PLACE.address, NODE, "made", state)
            content = msgspec.msgpack.encode(KeptPlace(PLACE, "" if existing else "RECOVERY"))
            await database.write(lambda tx: (REPOSITORIES.put(tx, repository), kept.put(tx, REPOSITORY, content)))
            workflow = RepositoryWorkflows(database, node, kept, CLOCK).workflows()[number]
            body = {"repository_id": REPOSITORY, "node_id": NODE, "chunker": "fixed-256k", "identity": "0" * 32}
            body |= {"existing": existing, "read": True, "grace_s": 1.0}

            async def check(step):
                found = await database.read(lambda tx: REPOSITORIES.find(tx, REPOSITORY))
                secrets = await database.read(lambda tx: tx.execute("SELECT id FROM secrets"))
                place = await database.read(lambda tx: kept_place(kept, tx, REPOSITORY)) if secrets else None
                assert node.works == set(), step
                outcome(Left(step, node, found.value if found else None, place))

            yield Trial(database, workflow, body, check)
            await database.close()

        return fresh

    return make


async def test_whichever_step_of_the_making_fails_nothing_of_it_is_left(world):
    def check(left):
        assert (left.node.there, left.found, left.place) == (False, None, None), left.step

    await fail_every_step(world(0, "creating", check), CLOCK)


async def test_one_that_was_there_before_is_left_alone_when_it_cannot_be_used(world):
    def check(left):
        assert (left.node.there, left.found, left.place) == (True, None, None), left.step

    await fail_every_step(world(0, "creating", check, existing=True), CLOCK)


async def test_whichever_step_of_the_making_runs_twice_there_is_one_and_its_recovery_key_is_forgotten(world):
    def check(left):
        assert (left.node.there, left.node.recovery) == (True, "RECOVERY"), left.step
        assert (left.found.state, left.found.made, left.found.problem) == ("ready", MADE, None)
        assert left.found.warnings == MADE.traits.weaknesses() != ()
        assert left.place == KeptPlace(PLACE)

    await repeat_every_step(world(0, "creating", check), CLOCK)


@pytest.mark.parametrize(("number", "state"), [(1, "checking"), (2, "pruning")])
async def test_work_that_fails_leaves_a_repository_that_is_free(world, number, state):
    def check(left):
        assert (left.node.there, left.found.state, left.found.problem.code, left.place.place) == (
            True,
            "ready",
            "injected",
            PLACE,
        ), left.step

    await fail_every_step(world(number, state, check), CLOCK)


@pytest.mark.parametrize(("number", "state", "field"), [(1, "checking", "checked"), (2, "pruning", "pruned")])
async def test_whichever_step_of_work_runs_twice_it_is_told_once(world, number, state, field):
    def check(left):
        assert (left.found.state, left.found.problem) == ("ready", None), left.step
        assert getattr(left.found, field).at > 0

    await repeat_every_step(world(number, state, check), CLOCK)

"""Every step of the sagas of backups is failed in turn, and run twice; the world must come out whole."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest

from novacron.control.backup_workflows import BackupWorkflows
from novacron.control.kinds import BACKUPS, SCHEMA
from novacron.control.repositories import KeptPlace
from novacron.control.secrets import Secrets
from novacron.core.clock import SystemClock
from novacron.core.ids import BackupId, NodeId, RepositoryId, VmId, new_id
from novacron.database.database import Database
from novacron.protocol.backup import BackupFacts, BackupReport, RepositoryPlace
from novacron.protocol.checkpoint import WorkProgress
from novacron.protocol.node import Nothing
from novacron.protocol.resources import Backup
from novacron.protocol.vm import VmSpec
from novacron.workflow.testing import Trial, fail_every_step, repeat_every_step

CLOCK = SystemClock()
BACKUP, VM, NODE, REPOSITORY = BackupId("backup-1"), VmId("vm-1"), NodeId("node-1"), RepositoryId("repository-1")
PLACE = RepositoryPlace(address="/srv/backups", how="file", secret=b"k" * 32)
FACTS = BackupFacts(
    VM,
    VmSpec("demo", 1, 1 << 27),
    1,
    created_at=1,
    consistency="crash",
    base="",
    full_because="it is the first",
    bitmap="b",
    read_bytes=3,
    new_bytes=2,
    stored_bytes=1,
)


class FakeNode:
    """The backups that it knows, and those that are in the repository."""

    def __init__(self, stored: set[str]) -> None:
        self.stored = stored
        self.looks = 0

    async def call(self, _node_id, method, request, _answer):
        return getattr(self, method.replace(".", "_"))(request)

    def backup_create(self, order):
        assert (order.repository, order.full, order.freeze, order.rate_bytes_s) == (PLACE, True, False, 7)
        self.looks += 1
        if self.looks == 1:
            return BackupReport(order.backup_id, "working", WorkProgress("disks", 1, 3))
        self.stored.add(order.backup_id)
        return BackupReport(order.backup_id, "done", facts=FACTS)

    def backup_cancel(self, _ref):
        return Nothing()

    def backup_delete(self, removal):
        assert removal.repository == PLACE
        self.stored.discard(removal.backup_id)
        return Nothing()


@dataclass
class Left:
    """What there is after a run in which ``step`` was failed or repeated."""

    step: str
    stored: set[str]
    found: Backup | None


@pytest.fixture
def world(tmp_path):
    """A backup in some state, and the job that works on it."""

    def make(number, state, outcome):
        @asynccontextmanager
        async def fresh():
            node = FakeNode(set() if state == "creating" else {BACKUP})
            database = await Database.open(str(tmp_path / new_id("db")), SCHEMA)
            kept = Secrets(tmp_path)
            backup = Backup(BACKUP, VM, "demo", REPOSITORY, "backups", NODE, state)
            content = msgspec.msgpack.encode(KeptPlace(PLACE))
            await database.write(lambda tx: BACKUPS.put(tx, backup, named=False))
            await database.write(lambda tx: kept.put(tx, REPOSITORY, content))
            workflow = BackupWorkflows(database, node, kept, CLOCK).workflows()[number]
            body = {"backup_id": BACKUP, "vm_id": VM, "node_id": NODE, "repository_id": REPOSITORY}
            body |= {"full": True, "freeze": False, "rate_bytes_s": 7}

            async def check(step):
                found = await database.read(lambda tx: BACKUPS.find(tx, BACKUP))
                outcome(Left(step, node.stored, found.value if found else None))

            yield Trial(database, workflow, body, check)
            await database.close()

        return fresh

    return make


async def test_whichever_step_of_a_backup_fails_nothing_of_it_is_left(world):
    def check(left):
        assert (left.stored, left.found) == (set(), None), left.step

    await fail_every_step(world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_backup_runs_twice_there_is_one(world):
    def check(left):
        found = left.found
        assert (left.stored, found.state, found.facts) == ({BACKUP}, "ready", FACTS), left.step
        assert found.progress == WorkProgress()

    await repeat_every_step(world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_removal_runs_twice_it_is_gone(world):
    def check(left):
        assert (left.stored, left.found) == (set(), None), left.step

    await repeat_every_step(world(1, "deleting", check), CLOCK)


async def test_a_removal_that_fails_leaves_a_backup_that_can_be_removed_again(world):
    def check(left):
        found = left.found
        assert found is None or (found.state, found.problem.code) == ("ready", "injected"), left.step
        assert (found is None) == (left.step == "forget")

    await fail_every_step(world(1, "deleting", check), CLOCK)

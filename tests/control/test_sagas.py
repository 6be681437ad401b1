"""Every step of every saga of the control plane is failed in turn, and run twice; the world must come out whole.

The nodes are a stand-in that keeps what they would: VMs, attempts and their states, as the agent's journal has them.
"""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest

from novacron.control.batch_workflow import BatchJob, BatchWorkflow
from novacron.control.cost import Costs
from novacron.control.kinds import BATCHES, MIGRATIONS, NODES, SCHEMA, VMS
from novacron.control.migrate_workflow import MigrateWorkflow
from novacron.control.vm_workflows import VmWorkflows
from novacron.core.clock import SystemClock
from novacron.core.errors import RemoteError
from novacron.core.ids import BatchId, ClusterId, MigrationId, NodeId, PlanId, VmId, new_id
from novacron.database.database import Database
from novacron.database.resources import watch
from novacron.protocol.migration import (
    ByteSplit,
    Condition,
    IncomingReady,
    MigrationPolicy,
    MigrationReport,
    MigrationSummary,
    OutgoingOffer,
)
from novacron.protocol.node import Nothing, VmReport
from novacron.protocol.resources import Batch, Cluster, Migration, Node, Vm
from novacron.protocol.vm import VmSpec
from novacron.workflow.testing import Trial, fail_every_step, repeat_every_step

CLOCK = SystemClock()
OWN, PEER, NODE = ClusterId("own"), ClusterId("peer"), NodeId("node-1")
VM, MIGRATION, BATCH = VmId("vm-1"), MigrationId("migration-1"), BatchId("batch-1")
SPEC = VmSpec("demo", 1, 1 << 27)


def contradiction(cause):
    return RemoteError(cause, code="journal_contradiction", exit_code=1, http_status=500)


class FakeNodes:
    """One node: what it keeps of one VM and one attempt."""

    def __init__(self) -> None:
        self.vm: str | None = None  # stopped or running
        self.attempt: str | None = None
        self.epoch = 1
        self.looks = [Condition("silent"), Condition("well")]  # of the guest, over there
        self.summary: MigrationSummary | None = None

    async def call(self, _node_id, method, request, _answer):
        return getattr(self, method.replace(".", "_"))(request)

    def newest(self, report, _node_id):
        return report

    def report(self) -> VmReport:
        return VmReport(VM, self.epoch, "owner", self.vm or "stopped", SPEC)

    def vm_create(self, _):
        self.vm = self.vm or "stopped"
        return self.report()

    def vm_start(self, _):
        assert self.vm
        self.vm = "running"
        return self.report()

    def vm_stop(self, _):
        if self.vm is None:
            raise RemoteError("not here", code="vm_not_here", exit_code=3, http_status=404)
        self.vm = "stopped"
        return self.report()

    def vm_delete(self, _):
        assert self.vm != "running"
        self.vm = None
        return Nothing()

    def vm_report(self, _):
        return self.report()

    def migration_open(self, _):
        if self.attempt is None:
            self.attempt, self.epoch = "open", self.epoch + 1
        return OutgoingOffer(MIGRATION, VM, self.epoch, SPEC, "spiffe://own/node/node-1", "127.0.0.1:1")

    def migration_run(self, order):
        assert order.policy.strategy == "cold"  # as the plan says
        if self.attempt == "open":
            self.attempt = "settled"
        elif self.attempt != "settled":
            raise contradiction(f"it is {self.attempt}")
        return self.migration_report(order)

    def migration_report(self, _):
        return MigrationReport(MIGRATION, VM, self.epoch, "source", self.attempt, summary=self.summary)

    def migration_look(self, _):
        assert self.attempt in {"settled", "reclaimed"}  # what is left behind is not released before it is over
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def migration_recall(self, ref):
        assert self.attempt in {"settled", "reclaimed"}
        self.attempt = "reclaimed"
        return self.migration_report(ref)

    def migration_cancel(self, _):
        if self.attempt is None:
            raise RemoteError("unknown", code="migration_unknown", exit_code=3, http_status=404)
        if self.attempt not in {"open", "aborted"}:
            raise contradiction(f"it is {self.attempt}")
        self.attempt = "aborted"
        return self.migration_report(_)

    def migration_release(self, _):
        assert self.attempt in {"settled", "released"}
        self.attempt = "released"
        return Nothing()


class FakeSite:
    """The destination's cluster."""

    def __init__(self) -> None:
        self.prepared = False
        self.told = ""

    async def supply(self, image):
        raise AssertionError(f"this VM boots from its disk, not from {image}")

    async def admit(self, order):
        self.prepared = True
        return IncomingReady(order.migration_id, "127.0.0.1:2", "spiffe://peer/node/x")

    async def dismiss(self, _ref):
        self.prepared = False
        return Nothing()

    async def progress(self, report):
        self.told = report.state
        return Nothing()


class FakePlans:
    """Chooses."""

    async def plan(self, vm, to, policy):
        assert (vm.id, to.cluster_id, policy.strategy) == (VM, PEER, "auto")
        return SimpleNamespace(id=PlanId(new_id("plan")), strategy="cold", predicted=None, policy=policy)


class NoPlans:
    """Finds out nothing."""

    async def plan(self, _vm, _to, _policy, *, probed):
        raise contradiction(f"nothing is known of what {probed} says")


class NoImages:
    async def supply(self, _node_id, images):
        assert images == []


@pytest.fixture
def fresh_database(tmp_path):
    @asynccontextmanager
    async def fresh(*records):
        database = await Database.open(str(tmp_path / new_id("db")), SCHEMA)
        for kind, value, named in records:
            await database.write(lambda tx, k=kind, v=value, n=named: k.put(tx, v, named=n))
        yield database
        await database.close()

    return fresh


@pytest.fixture
def migration_world(fresh_database):
    """A running VM, and its migration to a peer."""

    def world(outcome, prepared=lambda _: None, **more):
        @asynccontextmanager
        async def fresh():
            nodes, site = FakeNodes(), FakeSite()
            prepared(nodes)
            nodes.vm = "running"
            vm = Vm(VM, "demo", SPEC, "running", 1, NODE, MIGRATION)
            migration = Migration(MIGRATION, VM, "demo", "own", "peer", "outgoing", "prepare")
            async with fresh_database((VMS, vm, True), (MIGRATIONS, migration, False)) as database:
                plans = FakePlans()
                migrate = MigrateWorkflow(database, nodes, plans, site_of=lambda _: site, own=OWN, clock=CLOCK)
                workflow = migrate.workflow()
                policy = msgspec.to_builtins(MigrationPolicy(**{"strategy": "auto", "verify_window_ms": 0} | more))
                body = {"migration_id": MIGRATION, "vm_id": VM, "node_id": NODE, "target": PEER}
                body |= {"wanted_node": "", "policy": policy}

                async def check(step):
                    record = (await database.read(lambda tx: MIGRATIONS.get(tx, MIGRATION))).value
                    left = await database.read(lambda tx: VMS.find(tx, VM))
                    outcome(step, nodes, site, record, left.value if left else None)

                yield Trial(database, workflow, body, check)

        return fresh

    return world


async def test_whichever_step_of_a_migration_fails_the_vm_is_the_sources_and_free(migration_world):
    def check(step, nodes, site, record, vm):
        assert record.outcome == "failed", step
        assert record.problem.code == "injected"
        assert not site.prepared
        assert nodes.attempt in {None, "aborted"}
        assert (vm.state, vm.migration_id) == ("running", None)

    await fail_every_step(migration_world(check), CLOCK)


async def test_whichever_step_of_a_migration_runs_twice_the_vm_moves_once(migration_world):
    def check(step, nodes, site, record, vm):
        assert (record.outcome, record.phase) == ("succeeded", "done"), step
        assert site.prepared
        assert (nodes.attempt, nodes.epoch) == ("released", 2)
        assert vm is None

    await repeat_every_step(migration_world(check), CLOCK)


async def test_a_window_does_not_end_while_the_guests_node_is_silent(migration_world):
    def check(step, nodes, _site, record, _vm):
        assert (record.outcome, record.phase, nodes.attempt) == ("succeeded", "done", "released"), step
        assert len(nodes.looks) == 1

    await repeat_every_step(migration_world(check, verify_window_ms=1), CLOCK)


async def test_whichever_step_runs_twice_a_guest_that_died_goes_on_at_its_source_once(migration_world):
    def die(nodes):
        nodes.looks = [Condition("dead", "its QEMU has died")]

    def check(step, nodes, site, record, _vm):
        assert (record.outcome, record.phase) == ("rolled_back", "done"), step
        assert (record.problem.code, nodes.attempt, site.told) == ("guest_died", "reclaimed", "reclaimed")

    await repeat_every_step(migration_world(check, die, verify_window_ms=1), CLOCK)


async def test_whichever_step_runs_twice_the_way_back_of_an_unverified_guest_begins_once(migration_world):
    def find_nothing(nodes):
        nodes.summary = MigrationSummary(1, 1, 1, 1, 1, 1, 0, 1, False, ByteSplit(), "its agent did not answer")

    def check(step, _nodes, _site, record, _vm):
        assert (record.outcome, record.problem.code) == ("unverified", "guest_unverified"), step
        assert record.problem.next_command == f"novacron migration watch {record.rolled_back_by} --context peer"

    await repeat_every_step(migration_world(check, find_nothing), CLOCK)


@pytest.fixture
def vm_world(fresh_database):
    """A VM's record, and the job that makes or removes it."""

    def world(number, state, outcome):
        @asynccontextmanager
        async def fresh():
            nodes = FakeNodes()
            nodes.vm = None if state == "creating" else state
            vm = Vm(VM, "demo", SPEC, state, 1, NODE)
            async with fresh_database((VMS, vm, True)) as database:
                workflow = VmWorkflows(database, nodes, NoImages()).workflows()[number]
                body = {"vm_id": VM, "node_id": NODE, "spec": msgspec.to_builtins(SPEC), "start": True}

                async def check(step):
                    left = await database.read(lambda tx: VMS.find(tx, VM))
                    outcome(step, nodes, left.value if left else None)

                yield Trial(database, workflow, body, check)

        return fresh

    return world


async def test_whichever_step_of_a_creation_fails_nothing_is_left(vm_world):
    def check(step, nodes, vm):
        assert (nodes.vm, vm) == (None, None), step

    await fail_every_step(vm_world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_creation_runs_twice_there_is_one_vm(vm_world):
    def check(step, nodes, vm):
        assert (nodes.vm, vm.state) == ("running", "running"), step

    await repeat_every_step(vm_world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_deletion_runs_twice_it_is_gone(vm_world):
    def check(step, nodes, vm):
        assert (nodes.vm, vm) == (None, None), step

    await repeat_every_step(vm_world(1, "running", check), CLOCK)


@pytest.fixture
def batch_world(fresh_database):
    """Two VMs on a node that is being drained to a peer, where every migration succeeds at once."""

    def world(outcome):
        @asynccontextmanager
        async def fresh():
            node = Node(NODE, "node-1", "127.0.0.1:1", "spiffe://own/node/node-1", state="ready", drain="draining")
            vms = [Vm(VmId(f"vm-{n}"), f"vm-{n}", SPEC, "running", 1, NODE) for n in (1, 2)]
            batch = Batch(BATCH, "peer", drains="node-1", concurrency=1)
            records = [(NODES, node, True), (BATCHES, batch, False), *((VMS, vm, True) for vm in vms)]
            async with fresh_database(*records) as database:
                own = Cluster(OWN, "own", "1", "127.0.0.1:1")
                workflow = BatchWorkflow(
                    database, None, None, Costs(database, NoPlans()), own=own, clock=CLOCK
                ).workflow()
                body = msgspec.to_builtins(BatchJob(BATCH, PEER, "", MigrationPolicy()))

                async def check(step):
                    record = (await database.read(lambda tx: BATCHES.get(tx, BATCH))).value
                    left = await database.read(lambda tx: list(VMS.every(tx)))
                    outcome(step, record, (await database.read(lambda tx: NODES.get(tx, NODE))).value, left)

                settling = asyncio.create_task(settle_every_migration(database))
                yield Trial(database, workflow, body, check)
                settling.cancel()
                await asyncio.gather(settling, return_exceptions=True)

        return fresh

    return world


async def settle_every_migration(database):
    """What the other sagas do, at once."""

    def settle(tx, found):
        summary = MigrationSummary(1, 1, 1, 1, 1, 1, 0, 1, True, ByteSplit())
        ended = msgspec.structs.replace(found, outcome="succeeded", phase="done", summary=summary)
        MIGRATIONS.put(tx, ended, named=False)
        VMS.delete(tx, found.vm_id)

    async for change in watch(database, 0):
        if change.kind == "migration":
            found = msgspec.json.decode(change.body, type=Migration)
            if not found.outcome:
                await database.write(lambda tx, found=found: settle(tx, found))


async def test_whichever_step_of_a_batch_fails_every_vm_is_told_of_and_no_other_begins(batch_world):
    def check(step, record, node, left):
        assert record.outcome == {"begin": "failed", "move": "partial", "close": "succeeded"}[step]
        assert all(move.outcome for move in record.moves)
        assert record.problem.code == "injected"
        assert node.drain == ("drained" if step == "close" else "draining")
        assert [vm.migration_id for vm in left] == ([None, None] if step == "begin" else [])

    await fail_every_step(batch_world(check), CLOCK)


async def test_whichever_step_of_a_batch_runs_twice_every_vm_moves_once(batch_world):
    def check(step, record, node, left):
        assert (record.outcome, node.drain, left) == ("succeeded", "drained", []), step
        assert [move.outcome for move in record.moves] == ["succeeded", "succeeded"]

    await repeat_every_step(batch_world(check), CLOCK)

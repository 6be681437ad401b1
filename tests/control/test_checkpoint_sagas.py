"""Every step of the sagas of checkpoints is failed in turn, and run twice; the world must come out whole."""

from contextlib import asynccontextmanager

import msgspec
import pytest

from novacron.control import specs
from novacron.control.checkpoint_workflows import CheckpointWorkflows
from novacron.control.kinds import CHECKPOINTS, SCHEMA, VMS
from novacron.core.clock import SystemClock
from novacron.core.errors import RemoteError
from novacron.core.ids import CheckpointId, NodeId, VmId, new_id
from novacron.database.database import Database
from novacron.protocol.checkpoint import CheckpointFacts, CheckpointReport, RestoreReport
from novacron.protocol.node import Nothing, VmReport
from novacron.protocol.resources import Checkpoint, Vm
from novacron.protocol.vm import VmSpec
from novacron.workflow.testing import Trial, fail_every_step, repeat_every_step

CLOCK = SystemClock()
VM, COPY = VmId("vm-1"), VmId("vm-2")
NODE, CHECKPOINT = NodeId("node-1"), CheckpointId("checkpoint-1")
SPEC = VmSpec("demo", 1, 1 << 27)
FACTS = CheckpointFacts(
    VM, SPEC, 1, running=True, created_at=1, downtime_ms=1, read_bytes=1, new_bytes=1, stored_bytes=1
)


class FakeNodes:
    """One node: what it keeps of one VM's checkpoints and restores."""

    def __init__(self, vm: str) -> None:
        self.vm = vm
        self.checkpoints: dict[str, int] = {}  # how often each was asked for
        self.restores: dict[str, str] = {}  # which VM each is of
        self.made: dict[str, str] = {}  # VMs that are copies, and their states

    async def call(self, _node_id, method, request, _answer):
        return getattr(self, method.replace(".", "_"))(request)

    def newest(self, report, _node_id):
        return report

    def vm_report(self, ref):
        return VmReport(ref.vm_id, 1, "owner", self.vm if ref.vm_id == VM else self.made[ref.vm_id], SPEC)

    def vm_create(self, order):
        self.made.setdefault(order.vm_id, "stopped")
        return self.vm_report(order)

    def vm_stop(self, order):
        if order.vm_id not in self.made:
            raise RemoteError("not here", code="vm_not_here", exit_code=3, http_status=404)
        self.made[order.vm_id] = "stopped"
        return self.vm_report(order)

    def vm_delete(self, ref):
        assert self.made.pop(ref.vm_id, "stopped") == "stopped"
        return Nothing()

    def checkpoint_create(self, order):
        self.checkpoints[order.checkpoint_id] = self.checkpoints.get(order.checkpoint_id, 0) + 1
        return self.checkpoint_report(order)

    def checkpoint_report(self, ref):
        if ref.checkpoint_id not in self.checkpoints:
            raise RemoteError("unknown", code="checkpoint_unknown", exit_code=3, http_status=404)
        return CheckpointReport(ref.checkpoint_id, "done", facts=FACTS)

    def checkpoint_delete(self, ref):
        self.checkpoints.pop(ref.checkpoint_id, None)
        return Nothing()

    def checkpoint_restore(self, order):
        assert order.checkpoint_id in self.checkpoints
        assert order.copies == (order.vm_id == COPY)
        self.restores[order.restore_id] = order.vm_id
        return RestoreReport(order.restore_id, "working")

    def checkpoint_restore_report(self, ref):
        if (vm_id := self.restores[ref.restore_id]) == VM:
            self.vm = "running"
        else:
            self.made[vm_id] = "running"
        return RestoreReport(ref.restore_id, "done")

    def checkpoint_restore_cancel(self, ref):
        self.restores.pop(ref.restore_id, None)
        return Nothing()


class NoImages:
    async def supply(self, _node_id, images):
        assert images == []


@pytest.fixture
def world(tmp_path):
    """A VM, a checkpoint of it in some state, and the job that works on that."""

    def make(number, state, outcome):
        @asynccontextmanager
        async def fresh():
            nodes = FakeNodes("stopped" if state == "restoring" else "running")
            nodes.checkpoints = {} if state == "creating" else {CHECKPOINT: 1}
            database = await Database.open(str(tmp_path / new_id("db")), SCHEMA)
            facts = None if state == "creating" else FACTS
            checkpoint = Checkpoint(CHECKPOINT, VM, "demo", NODE, state, facts=facts)
            await database.write(lambda tx: VMS.put(tx, Vm(VM, "demo", SPEC, nodes.vm, 1, NODE)))
            await database.write(lambda tx: CHECKPOINTS.put(tx, checkpoint, named=False))
            workflow = CheckpointWorkflows(database, nodes, NoImages(), CLOCK).workflows()[number]
            body = {"checkpoint_id": CHECKPOINT, "vm_id": VM, "node_id": NODE, "keep": 0, "keep_s": 0.0}
            body |= {"restore_id": "restore-1", "force": False}

            async def check(step):
                left = await database.read(lambda tx: CHECKPOINTS.find(tx, CHECKPOINT))
                vm = (await database.read(lambda tx: VMS.get(tx, VM))).value
                outcome(step, nodes, left.value if left else None, vm)

            yield Trial(database, workflow, body, check)
            await database.close()

        return fresh

    return make


async def test_whichever_step_of_a_checkpoint_fails_nothing_of_it_is_left(world):
    def check(step, nodes, left, vm):
        assert (nodes.checkpoints, left, vm.state) == ({}, None, "running"), step

    await fail_every_step(world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_checkpoint_runs_twice_there_is_one(world):
    def check(step, nodes, left, vm):
        assert (left.state, left.facts, vm.state) == ("ready", FACTS, "running"), step
        assert nodes.checkpoints == {CHECKPOINT: 2 if step == "begin" else 1}

    await repeat_every_step(world(0, "creating", check), CLOCK)


async def test_whichever_step_of_a_removal_runs_twice_it_is_gone(world):
    def check(step, nodes, left, vm):
        assert (nodes.checkpoints, left, vm.state) == ({}, None, "running"), step

    await repeat_every_step(world(1, "deleting", check), CLOCK)


async def test_a_removal_that_fails_leaves_a_checkpoint_that_can_be_removed_again(world):
    def check(step, nodes, left, vm):
        assert (nodes.checkpoints, vm.state) == ({}, "running")
        assert left is None or (left.state, left.problem.code) == ("ready", "injected"), step
        assert (left is None) == (step == "forget")

    await fail_every_step(world(1, "deleting", check), CLOCK)


async def test_whichever_step_of_a_restore_fails_before_the_vm_is_back_it_is_given_up(world):
    def check(step, nodes, left, vm):
        assert (nodes.restores, left.state, left.problem.code) == ({}, "ready", "injected"), step
        assert vm.state == "stopped"

    await fail_every_step(world(2, "restoring", check), CLOCK)


async def test_whichever_step_of_a_restore_runs_twice_the_vm_is_back(world):
    def check(step, nodes, left, vm):
        assert (left.state, left.problem, vm.state) == ("ready", None, "running"), step
        assert nodes.restores == {"restore-1": VM}

    await repeat_every_step(world(2, "restoring", check), CLOCK)


@pytest.fixture
def copy_world(tmp_path):
    """A VM that runs, a checkpoint of it, and the job that makes another VM of that."""

    def make(outcome):
        @asynccontextmanager
        async def fresh():
            nodes = FakeNodes("running")
            nodes.checkpoints = {CHECKPOINT: 1}
            database = await Database.open(str(tmp_path / new_id("db")), SCHEMA)
            checkpoint = Checkpoint(CHECKPOINT, VM, "demo", NODE, "restoring", facts=FACTS)
            spec = specs.copied(SPEC, "copy")
            for vm in (Vm(VM, "demo", SPEC, "running", 1, NODE), Vm(COPY, "copy", spec, "creating", 1, NODE)):
                await database.write(lambda tx, vm=vm: VMS.put(tx, vm))
            await database.write(lambda tx: CHECKPOINTS.put(tx, checkpoint, named=False))
            workflow = CheckpointWorkflows(database, nodes, NoImages(), CLOCK).workflows()[3]
            body = {"checkpoint_id": CHECKPOINT, "vm_id": COPY, "node_id": NODE, "restore_id": "restore-1"}
            body |= {"force": False, "copies": True, "spec": msgspec.to_builtins(spec)}

            async def check(step):
                vms = await database.read(lambda tx: {vm.name: vm.state for vm in VMS.every(tx)})
                left = await database.read(lambda tx: CHECKPOINTS.get(tx, CHECKPOINT).value)
                outcome(step, nodes, left, vms)

            yield Trial(database, workflow, body, check)
            await database.close()

        return fresh

    return make


async def test_whichever_step_of_a_copy_fails_nothing_of_it_is_left(copy_world):
    def check(step, nodes, left, vms):
        assert (nodes.made, nodes.restores, left.state, left.problem.code) == ({}, {}, "ready", "injected"), step
        assert vms == {"demo": "running"}

    await fail_every_step(copy_world(check), CLOCK)


async def test_whichever_step_of_a_copy_runs_twice_there_is_one_beside_the_first(copy_world):
    def check(step, nodes, left, vms):
        assert (nodes.made, left.state, left.problem) == ({COPY: "running"}, "ready", None), step
        assert vms == {"demo": "running", "copy": "running"}

    await repeat_every_step(copy_world(check), CLOCK)

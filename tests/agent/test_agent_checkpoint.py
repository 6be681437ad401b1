"""A real guest under load: taken at one instant, it goes on; brought back, it goes on from then."""

import asyncio

import pytest

from novacron.control import specs
from novacron.core.ids import CheckpointId, RestoreId, VmId, new_id
from novacron.migration.capture import Capture
from novacron.protocol.checkpoint import (
    CheckpointOrder,
    CheckpointRef,
    CheckpointReport,
    RestoreOrder,
    RestoreRef,
    RestoreReport,
)
from novacron.protocol.node import VmCreate, VmReport
from support.nodes import VM, spec


async def made(nodes) -> CheckpointReport:
    order = CheckpointOrder(CheckpointId(new_id("checkpoint")), VM)
    await nodes.clients["a"].call("checkpoint.create", order, CheckpointReport)
    async with asyncio.timeout(60):
        while True:
            ref = CheckpointRef(order.checkpoint_id)
            report = await nodes.clients["a"].call("checkpoint.report", ref, CheckpointReport)
            if report.state != "working":
                assert report.state == "done", report
                return report
            await asyncio.sleep(0.05)


async def restored(nodes, order: RestoreOrder) -> None:
    await nodes.clients["a"].call("checkpoint.restore", order, RestoreReport)
    async with asyncio.timeout(90):
        while True:
            ref = RestoreRef(order.restore_id)
            report = await nodes.clients["a"].call("checkpoint.restore_report", ref, RestoreReport)
            if report.state != "working":
                break
            await asyncio.sleep(0.05)
    assert report.state == "done", report


async def look(nodes, tag: str, vm_id: VmId = VM) -> dict:
    async with nodes.console("a", vm_id) as guest:
        found = await guest.check(tag)
        assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
        return {**found, **await guest.wait_for("t")}


@pytest.mark.xdist_group("qemu-1")
async def test_a_real_guest_goes_on_beside_the_vm_that_was_made_of_its_checkpoint(nodes):
    await nodes.boot("a")
    checkpoint = await made(nodes)
    copy = VmId(new_id("vm"))
    await nodes.clients["a"].call("vm.create", VmCreate(copy, specs.copied(spec(), "copy"), 1), VmReport)
    await restored(nodes, RestoreOrder(RestoreId(new_id("restore")), checkpoint.checkpoint_id, copy, copies=True))
    async with nodes.console("a", copy) as guest:
        first = await guest.wait_for("t")
    last = await look(nodes, "first")
    assert first["records"] < last["records"]  # it went on while the copy was being made, and did not yet run
    beside = await look(nodes, "copy", copy)
    assert last["kept"] == beside["kept"]  # neither has booted again
    assert {vm.vm_id: vm.state for vm in (await nodes.describe("a")).vms} == {VM: "running", copy: "running"}


@pytest.mark.xdist_group("qemu-1")
async def test_a_real_guest_comes_back_to_the_instant_of_its_checkpoint(nodes, monkeypatch):
    await nodes.boot("a")
    before = await look(nodes, "before")
    first = await made(nodes)
    assert first.facts.running
    assert first.facts.downtime_ms > 0
    after = await look(nodes, "after")
    assert after["records"] > before["records"]
    second = await made(nodes)
    assert second.facts.new_bytes < first.facts.new_bytes / 2
    last = await look(nodes, "last")

    restore = RestoreOrder(RestoreId(new_id("restore")), first.checkpoint_id, VM, force=True)
    await restored(nodes, restore)
    async with nodes.console("a") as guest:
        back = await guest.wait_for("t")
    assert before["records"] <= back["records"] < last["records"]
    assert back["kept"] == before["kept"]  # it has not booted again
    await look(nodes, "back")

    reached = asyncio.Event()

    async def hang(_capture) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Capture, "_at_one_instant", hang)  # the guest stands still, and its agent stops
    order = CheckpointOrder(CheckpointId(new_id("checkpoint")), VM)
    await nodes.clients["a"].call("checkpoint.create", order, CheckpointReport)
    await reached.wait()
    monkeypatch.undo()
    await nodes.stop("a")
    await nodes.start("a")
    (vm,) = (await nodes.describe("a")).vms
    assert (vm.state, vm.ownership) == ("running", "owner")
    await look(nodes, "went on")
    third = await made(nodes)
    assert third.facts.running
    await look(nodes, "end")

"""What an agent recorded and died before doing is done when it starts again."""

import asyncio

import pytest

from novacron.core.errors import RemoteError
from novacron.hypervisor.driver import MachineState
from novacron.hypervisor.errors import QemuDiedError
from novacron.protocol.migration import MigrationPolicy, MigrationReport
from novacron.protocol.node import VmCreate, VmRef, VmReport
from support.nodes import VM, spec

SLOW = MigrationPolicy(bandwidth_bytes_s=2_000_000)


def dead(*_args, **_more):
    raise QemuDiedError("a dead agent does nothing")


@pytest.mark.xdist_group("qemu-1")
async def test_a_vm_whose_attempt_was_given_up_runs_again(nodes, monkeypatch):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, SLOW)
    outgoing = nodes.agents["a"]._outgoing

    async def hold_and_die(machine) -> None:
        await machine.pause()
        dead()

    monkeypatch.setattr(outgoing, "_take_back", hold_and_die)
    await nodes.clients["a"].call("migration.cancel", ref, MigrationReport)
    assert (await nodes.clients["a"].call("vm.report", VmRef(VM), VmReport)).state == "paused"
    await nodes.stop("a")
    await nodes.start("a")
    assert (await nodes.clients["a"].call("vm.report", VmRef(VM), VmReport)).state == "running"
    async with nodes.console("a") as guest:
        assert (await guest.check("after"))["errors"] == 0


@pytest.mark.xdist_group("qemu-2")
async def test_what_was_made_ready_for_a_lost_attempt_is_ended(nodes, monkeypatch):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, SLOW)
    monkeypatch.setattr(nodes.agents["b"]._driver, "end_incoming", dead)
    await nodes.clients["a"].call("migration.cancel", ref, MigrationReport)
    await nodes.until("b", ref, "lost")
    assert await nodes.agents["b"]._driver.adopt(VM) != []
    await nodes.stop("b")
    await nodes.start("b")
    assert await nodes.agents["b"]._driver.adopt(VM) == []


@pytest.mark.xdist_group("qemu-1")
async def test_a_qemu_that_was_started_and_not_recorded_is_ended_and_the_vm_starts(nodes, monkeypatch):
    client = nodes.clients["a"]
    await client.call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    monkeypatch.setattr(nodes.agents["a"]._journal, "note", dead)
    with pytest.raises(RemoteError):
        await client.call("vm.start", VmRef(VM), VmReport)
    assert len(await nodes.agents["a"]._driver.adopt(VM)) == 1
    await nodes.stop("a")
    await nodes.start("a")
    assert await nodes.agents["a"]._driver.adopt(VM) == []
    assert (await client.call("vm.start", VmRef(VM), VmReport)).state == "running"


@pytest.mark.xdist_group("qemu-2")
async def test_a_guest_that_came_and_has_gone_on_stands_still_through_a_restart(nodes):
    """Its paused instance is the one that had come, and that was recorded to run."""
    await nodes.boot("a")
    await nodes.until("a", await nodes.order("a", "b", 1), "settled")
    await nodes.until("b", await nodes.order("b", "a", 2), "settled")
    await nodes.stop("b")
    await nodes.start("b")
    (left,) = await nodes.agents["b"]._driver.adopt(VM)
    assert await left.state() is not MachineState.RUNNING
    async with nodes.console("a") as guest:
        assert (await guest.check("there"))["errors"] == 0


@pytest.mark.xdist_group("qemu-2")
async def test_a_guest_that_came_and_is_about_to_go_on_runs_again_after_a_restart(nodes):
    """Its QEMU goes on with a migration that is not led by its node: it is taken back first."""
    await nodes.boot("a")
    await nodes.until("a", await nodes.order("a", "b", 1), "settled")
    ref = await nodes.order("b", "a", 2, MigrationPolicy(strategy="native"))
    source = nodes.agents["b"]._outgoing._moves[ref.migration_id]
    async with asyncio.timeout(60):
        while source.meter.phase != "switchover":  # noqa: ASYNC110 - the source's own count
            await asyncio.sleep(0.001)
    await nodes.stop("b")
    await nodes.start("b")
    async with nodes.console("b") as guest:
        assert (await guest.check("back"))["errors"] == 0

"""Two real agents hand a real guest to each other."""

import asyncio
from contextlib import aclosing

import pytest

from novacron.core.errors import RemoteError
from novacron.core.units import MIB
from novacron.hypervisor.errors import QemuDiedError
from novacron.migration.frames import FrameType
from novacron.protocol.migration import Condition, MigrationPolicy, MigrationReport
from novacron.protocol.node import NodeEvent, Nothing, VmRef, VmReport, VmStop
from novacron.wire.channel import ParallelChannel
from novacron.wire.errors import ConnectionBrokenError
from support.nodes import VM

SLOW = MigrationPolicy(bandwidth_bytes_s=2_000_000)


async def owners(nodes) -> list[str]:
    """Nodes whose journal says that they own the VM."""
    found = []
    for name in nodes.agents:
        vms = (await nodes.describe(name)).vms
        found += [name for vm in vms if vm.ownership == "owner"]
    return found


@pytest.mark.xdist_group("qemu-1")
async def test_there_and_back_and_the_way_back_is_nearly_free(nodes):
    await nodes.boot("a")
    there = await nodes.order("a", "b", 1)
    report = await nodes.until("a", there, "settled")
    assert report.summary.verified
    assert await owners(nodes) == ["b"]
    async with nodes.console("b") as guest:
        assert (await guest.check("there"))["errors"] == 0
    await nodes.clients["a"].call("migration.release", there, Nothing)

    back = await nodes.order("b", "a", 2)
    report = await nodes.until("b", back, "settled")
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        found = await guest.check("back")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert report.summary.wire_bytes < 0.05 * report.summary.guest_bytes
    await nodes.clients["b"].call("migration.release", back, Nothing)

    stopped = await nodes.clients["a"].call("vm.stop", VmStop(VM, force=True), VmReport)
    assert stopped.state == "stopped"
    await nodes.clients["a"].call("vm.delete", VmRef(VM), Nothing)
    assert (await nodes.describe("a")).vms == ()


@pytest.mark.xdist_group("qemu-2")
async def test_there_natively_and_back_without_an_image_of_what_arrived(nodes):
    await nodes.boot("a")
    there = await nodes.order("a", "b", 1, MigrationPolicy(strategy="native"))
    assert (await nodes.until("a", there, "settled")).summary.verified
    facts = {name: nodes.agents[name]._journal.facts(VM) for name in ("a", "b")}
    assert (facts["a"].cache_state, facts["a"].cache_image, facts["b"].arrival_image) == (there.migration_id, "", "")
    await nodes.clients["a"].call("migration.release", there, Nothing)
    await nodes.stop("b")
    await nodes.start("b")  # it finds the VM as it was
    back = await nodes.until("b", await nodes.order("b", "a", 2), "settled")
    assert back.summary.disk_wire_bytes < 0.1 * back.summary.guest_bytes
    async with nodes.console("a") as guest:
        found = await guest.check("back")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


@pytest.mark.xdist_group("qemu-2")
async def test_a_native_migration_that_breaks_in_its_rounds_leaves_the_vm_where_it_was(nodes):
    await nodes.boot("a")
    slow = MigrationPolicy(strategy="native", bandwidth_bytes_s=8_000_000)
    ref = await nodes.order("a", "b", 1, slow)
    await nodes.until_sent("a", ref, 30 * MIB)
    await nodes.stop("b")
    await nodes.until("a", ref, "aborted")
    await nodes.start("b")
    await nodes.until("b", ref, "lost")
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        assert (await guest.check("after"))["errors"] == 0


@pytest.mark.xdist_group("qemu-2")
async def test_a_cancelled_migration_leaves_the_vm_running_where_it_was(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, SLOW)
    report = await nodes.clients["a"].call("migration.cancel", ref, MigrationReport)
    assert (report.state, report.error_code) == ("aborted", "migration_cancelled")
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        assert (await guest.check("after"))["errors"] == 0
    await nodes.until("b", ref, "lost")
    with pytest.raises(RemoteError) as caught:
        await nodes.order("a", "b", 1)
    assert caught.value.code == "journal_contradiction"
    again = await nodes.order("a", "b", 3)
    await nodes.until("a", again, "settled")
    async with nodes.console("b") as guest:
        assert (await guest.check("there"))["errors"] == 0


@pytest.mark.xdist_group("qemu-1")
async def test_a_destination_that_stops_during_the_copy_changes_nothing(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, SLOW)
    await nodes.until_sent("a", ref, 1)
    await nodes.stop("b")
    report = await nodes.until("a", ref, "aborted")
    assert report.error_code
    await nodes.start("b")
    await nodes.until("b", ref, "lost")
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        assert (await guest.check("after"))["errors"] == 0


@pytest.mark.xdist_group("qemu-2")
@pytest.mark.parametrize("stopped", ["a", "b"])
async def test_what_had_come_before_a_cut_is_not_sent_again(nodes, stopped):
    await nodes.boot("a")
    slow = MigrationPolicy(bandwidth_bytes_s=12_000_000)
    ref = await nodes.order("a", "b", 1, slow)
    before = await nodes.until_sent("a", ref, 60 * MIB)
    await nodes.stop(stopped)
    await nodes.start(stopped)
    await nodes.until("a", ref, "aborted")
    await nodes.until("b", ref, "lost")
    again = await nodes.order("a", "b", 2)
    report = await nodes.until("a", again, "settled")
    assert report.summary.verified
    async with nodes.console("b") as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert report.summary.wire_bytes < 0.3 * before.progress.wire_bytes


@pytest.mark.xdist_group("qemu-2")
async def test_a_source_agent_that_stops_during_the_copy_takes_its_vm_back(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, SLOW)
    await nodes.until_sent("a", ref, 1)
    await nodes.stop("a")
    await nodes.start("a")
    assert (await nodes.until("a", ref, "aborted")).state == "aborted"
    await nodes.until("b", ref, "lost")
    vm = (await nodes.describe("a")).vms[0]
    assert (vm.state, vm.ownership) == ("running", "owner")
    async with nodes.console("a") as guest:
        assert (await guest.check("after"))["errors"] == 0


@pytest.mark.xdist_group("qemu-1")
async def test_a_lost_commit_is_told_again_until_it_arrives(nodes, monkeypatch):
    """The source has handed over, and its word does not arrive: the VM is paused, not doubled, and then runs."""
    await nodes.boot("a")
    reached = asyncio.Event()
    outgoing = nodes.agents["a"]._outgoing
    commit = outgoing._commit

    async def commit_and_lose_the_link(order) -> None:
        await commit(order)
        reached.set()
        await asyncio.Event().wait()  # until the broken channel ends it

    monkeypatch.setattr(outgoing, "_commit", commit_and_lose_the_link)
    ref = await nodes.order("a", "b", 1)
    await reached.wait()
    await nodes.stop("b")
    report = await nodes.until("a", ref, "committed")
    assert await owners(nodes) == []
    await nodes.start("b")
    report = await nodes.until("a", ref, "settled")
    assert report.progress.phase == "window"
    assert report.summary.verified
    assert report.summary.guest_bytes > report.summary.wire_bytes > 0
    assert report.summary.downtime_ms > 0
    assert await owners(nodes) == ["b"]
    async with nodes.console("b") as guest:
        assert (await guest.check("there"))["errors"] == 0
    await nodes.clients["a"].call("migration.release", ref, Nothing)
    back = await nodes.until("b", await nodes.order("b", "a", 2), "settled")
    assert back.summary.wire_bytes < 0.05 * back.summary.guest_bytes


@pytest.mark.xdist_group("qemu-1")
async def test_a_destination_that_closes_after_its_last_word_breaks_nothing(nodes, monkeypatch):
    receive, sent = ParallelChannel.receive, set()

    async def receive_then_closed(channel):
        if FrameType.VERIFIED in sent:
            raise ConnectionBrokenError("the other side has closed the channel")
        kind, body = await receive(channel)
        sent.add(kind)
        return kind, body

    async def no_second_word(*_args) -> None:
        raise AssertionError("the destination has said everything: nothing is left to ask")

    monkeypatch.setattr(ParallelChannel, "receive", receive_then_closed)
    await nodes.boot("a")
    monkeypatch.setattr(nodes.agents["a"]._outgoing, "_pursue", no_second_word)
    report = await nodes.until("a", await nodes.order("a", "b", 1), "settled")
    assert report.summary.verified


@pytest.mark.xdist_group("qemu-2")
async def test_a_destination_that_died_after_ready_gives_the_vm_back(nodes, monkeypatch):
    """Its QEMU dies between the hand-over and the first instruction: the source, paused, goes on."""
    await nodes.boot("a")
    outgoing = nodes.agents["a"]._outgoing
    commit = outgoing._commit

    async def commit_and_kill(order) -> None:
        await commit(order)
        driver = nodes.agents["b"]._driver
        for machine in await driver.adopt(VM):
            await machine.kill()

    monkeypatch.setattr(outgoing, "_commit", commit_and_kill)
    ref = await nodes.order("a", "b", 1)
    report = await nodes.until("a", ref, "reclaimed")
    assert "lost the VM before it ran" in report.error_cause
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        found = await guest.check("after")
    assert (found["errors"], found["lost"]) == (0, 0)


@pytest.mark.xdist_group("qemu-2")
async def test_a_guest_whose_qemu_died_after_it_ran_goes_on_where_it_came_from(nodes):
    await nodes.boot("a")
    there = await nodes.order("a", "b", 1)
    await nodes.until("a", there, "settled")
    async with nodes.console("b") as guest:
        assert (await guest.check("there"))["errors"] == 0
    assert (await nodes.clients["a"].call("migration.look", there, Condition)).state == "well"
    refused = await nodes.clients["a"].call("migration.recall", there, MigrationReport)
    assert (refused.state, await owners(nodes)) == ("settled", ["b"])
    (machine,) = await nodes.agents["b"]._driver.adopt(VM)
    await machine.process.kill()
    assert (await nodes.clients["a"].call("migration.look", there, Condition)).state == "dead"
    report = await nodes.clients["a"].call("migration.recall", there, MigrationReport)
    assert report.state == "reclaimed"
    assert report.handed_over_at > 0
    assert await owners(nodes) == ["a"]
    async with nodes.console("a") as guest:
        found = await guest.check("after")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    again = await nodes.until("a", await nodes.order("a", "b", 2), "settled")
    assert again.summary.verified
    async with nodes.console("b") as guest:
        found = await guest.check("again")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


@pytest.mark.xdist_group("qemu-1")
async def test_a_qemu_that_dies_by_itself_is_told_and_a_fault_of_one_look_ends_nothing(nodes, monkeypatch):
    vms = nodes.agents["a"]._vms
    looks, faults = vms.looks, []

    async def look_once_in_vain():
        if not faults:
            faults.append("once")
            raise QemuDiedError("it died while it was asked")
        return await looks()

    monkeypatch.setattr(vms, "looks", look_once_in_vain)
    await nodes.boot("a")
    (machine,) = await nodes.agents["a"]._driver.adopt(VM)
    await machine.process.kill()
    async with asyncio.timeout(30), aclosing(nodes.clients["a"].stream("node.watch", Nothing(), NodeEvent)) as told:
        async for event in told:
            if event.vm is not None and event.vm.state == "stopped":
                break
    assert faults


@pytest.mark.xdist_group("qemu-2")
async def test_an_agent_that_dies_before_it_noted_the_disks_that_came_notes_them_at_its_start(nodes, monkeypatch):
    """Else the VM would boot from its older disks, and the newer ones would be swept away as nobody's."""
    await nodes.boot("a")
    reached = asyncio.Event()

    async def die_here(_machine) -> None:
        if reached.is_set():
            raise QemuDiedError("a dead agent does nothing")
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(nodes.agents["b"]._driver, "settle_incoming", die_here)
    ref = await nodes.order("a", "b", 1)
    await reached.wait()
    await nodes.stop("b")
    await nodes.start("b")
    await nodes.until("a", ref, "settled")
    async with nodes.console("b") as guest:
        written = (await guest.wait_for("t"))["records"]
    await nodes.clients["b"].call("vm.stop", VmStop(VM, force=True), VmReport)
    await nodes.clients["b"].call("vm.start", VmRef(VM), VmReport)
    async with nodes.console("b") as guest:
        assert (await guest.wait_for("t"))["kept"] >= written
        assert (await guest.check("cold"))["errors"] == 0

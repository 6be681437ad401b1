"""Memory that follows its guest between two agents: over a link that breaks, and whichever of them is started again."""

import asyncio

import pytest

from novacron.core.errors import RemoteError
from novacron.protocol.migration import Condition, MigrationPolicy, MigrationReport
from novacron.protocol.node import VmRef, VmReport
from support.nodes import VM

POST_COPY = MigrationPolicy(strategy="postcopy", bandwidth_bytes_s=16_000_000)


async def until_following(nodes, ref) -> None:
    async with asyncio.timeout(150):
        while True:
            report = await nodes.clients["a"].call("migration.report", ref, MigrationReport)
            if report.progress.phase == "following":
                return
            assert report.state in {"moving", "committed"}, report
            await asyncio.sleep(0.005)


async def arrives_whole(nodes, ref) -> MigrationReport:
    report = await nodes.until("a", ref, "settled", timeout_s=150)
    assert report.summary.verified, report
    async with nodes.console("b") as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    return report


async def is_dead(nodes, ref) -> bool:
    return (await nodes.clients["a"].call("migration.look", ref, Condition)).state == "dead"


async def goes_on_where_it_was(nodes, ref) -> None:
    report = await nodes.clients["a"].call("migration.recall", ref, MigrationReport)
    assert report.state == "reclaimed"
    assert (await nodes.clients["a"].call("vm.report", VmRef(VM), VmReport)).state == "running"


async def test_a_link_that_is_cut_is_not_noticed_by_the_guest(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, POST_COPY)
    await until_following(nodes, ref)
    nodes.agents["b"]._incoming._receiving[ref.migration_id].channel.abort()
    with pytest.raises(RemoteError) as refused:
        await nodes.clients["a"].call("migration.cancel", ref, MigrationReport)
    assert "no way back" in refused.value.cause
    assert refused.value.next_command == f"novacron migration watch {ref.migration_id}"
    await arrives_whole(nodes, ref)


@pytest.mark.soak
async def test_a_source_that_is_started_again_goes_on(nodes):
    """Unless its QEMU had sent everything in that moment: then it waits for ever (docs/postcopy.md)."""
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, POST_COPY)
    await until_following(nodes, ref)
    await nodes.stop("a")
    await nodes.start("a")
    await arrives_whole(nodes, ref)


@pytest.mark.soak
async def test_a_destination_that_is_started_again_goes_on_or_gives_the_guest_back(nodes):
    """It depends on whether QEMU waits for a page inside a device at that moment."""
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, POST_COPY)
    await until_following(nodes, ref)
    await nodes.stop("b")
    await nodes.start("b")
    report = await nodes.until("a", ref, "settled", timeout_s=150)
    where = "b"
    if not report.summary.verified or await is_dead(nodes, ref):
        await goes_on_where_it_was(nodes, ref)
        where = "a"
    async with nodes.console(where) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def test_a_guest_that_dies_before_its_memory_has_come_goes_on_where_it_was(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, POST_COPY)
    await until_following(nodes, ref)
    for machine in await nodes.agents["b"]._driver.adopt(VM):
        await machine.kill()
    await nodes.until("a", ref, "settled", timeout_s=150)
    assert await is_dead(nodes, ref)
    await goes_on_where_it_was(nodes, ref)
    async with nodes.console("a") as guest:
        assert (await guest.check("back"))["errors"] == 0


async def test_before_the_hand_over_it_is_cancelled_at_once(nodes):
    await nodes.boot("a")
    ref = await nodes.order("a", "b", 1, POST_COPY)
    await nodes.until_sent("a", ref, 10_000_000)
    report = await nodes.clients["a"].call("migration.cancel", ref, MigrationReport)
    assert (report.state, report.error_code) == ("aborted", "migration_cancelled")
    async with nodes.console("a") as guest:
        assert (await guest.check("here"))["errors"] == 0

"""An operator's word that the other end is fenced, and by nothing else, brings a VM back that was handed over."""

import asyncio

import pytest

from novacron.agent.outgoing import OutgoingMigrations
from novacron.control.kinds import MIGRATIONS, VMS
from novacron.core.errors import ConflictError, RemoteError
from novacron.database.errors import ResourceUnknownError
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.rest import TakeOverRequest
from support.clusters import in_memory, two_clusters

WORD = "site-b has burned down"
LONG = MigrationPolicy(verify_window_ms=600_000)
ATTEST = TakeOverRequest(WORD)


@pytest.fixture
async def sites(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        yield a, b


async def verdict(site):
    async with site.console("demo") as guest:
        found = await guest.check("after")
    return found["errors"], found["lost"], found["doubled"]


async def stop(site):
    await site.stop_node("node-1")
    await site.stop_controller()


async def come_back(site):
    await site.start_controller()
    await site.start_node("node-1")


async def test_a_vm_is_fetched_from_a_cluster_that_is_lost_and_that_stands_down_when_it_is_back(sites):
    a, b = sites
    vm = await a.boot_small()
    there = await a.migrate("demo", "site-b", LONG)
    await a.ended(there.id)
    await a.until(VMS, "demo", None)
    await stop(b)

    taken = await a.controller.vms.take_over("demo", ATTEST)
    assert (taken.id, taken.state) == (vm.id, "running")
    assert await verdict(a) == (0, 0, 0)
    record = (await a.database.read(lambda tx: MIGRATIONS.get(tx, there.id))).value
    assert (record.outcome, record.attestation) == ("taken_over", WORD)
    assert (await a.controller.vms.take_over("demo", ATTEST)).owner_epoch == taken.owner_epoch

    await come_back(b)
    await b.until(VMS, "demo", None)
    driver = b.agents["node-1"][0]._driver
    assert await driver.adopt(vm.id) == []
    again = await a.migrate("demo", "site-b", MigrationPolicy(verify_window_ms=0))
    assert (await a.ended(again.id)).outcome == "succeeded"
    await b.until(VMS, "demo", lambda found: found.state == "running")
    assert await verdict(b) == (0, 0, 0)


async def test_a_vm_that_was_handed_over_and_never_answered_for_is_taken_over(sites, monkeypatch):
    a, b = sites
    vm = await a.boot_small()
    agent, reached = a.agents["node-1"][0], asyncio.Event()
    commit = OutgoingMigrations._commit

    async def commit_and_lose_the_link(outgoing, order):
        await commit(outgoing, order)
        reached.set()
        await asyncio.Event().wait()  # until the broken channel ends it

    monkeypatch.setattr(OutgoingMigrations, "_commit", commit_and_lose_the_link)
    there = await a.migrate("demo", "site-b", LONG)
    await reached.wait()
    await stop(b)
    with pytest.raises(RemoteError):
        await a.controller.vms.pause("demo")

    taken = await a.controller.vms.take_over("demo", ATTEST)
    assert taken.owner_epoch > vm.owner_epoch + 1
    ended = await a.until(MIGRATIONS, there.id, lambda move: move.ended_at)
    assert (ended.outcome, ended.attestation) == ("taken_over", WORD)
    free = await a.until(VMS, "demo", lambda found: found.migration_id is None and found.state == "running")
    assert free.id == vm.id
    assert await verdict(a) == (0, 0, 0)

    await come_back(b)
    await b.ended(there.id)
    assert agent._journal.latest(vm.id).state in {"taken_over", "reclaimed"}
    assert await b.agents["node-1"][0]._driver.adopt(vm.id) == []


async def test_what_is_whole_at_its_destination_is_taken_over_there_when_its_source_is_lost(sites, monkeypatch):
    a, b = sites
    vm = await a.boot_small()

    reached, driver = asyncio.Event(), a.agents["node-1"][0]._driver

    async def never(_outgoing, _order):
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(OutgoingMigrations, "_commit", never)
    await a.migrate("demo", "site-b", LONG)
    await reached.wait()
    await stop(a)
    for machine in await driver.adopt(vm.id):
        await machine.kill()
    taken = await b.controller.vms.take_over("demo", ATTEST)
    assert (taken.id, taken.state) == (vm.id, "running")
    assert await verdict(b) == (0, 0, 0)

    monkeypatch.undo()
    await come_back(a)
    await a.until(VMS, "demo", None)
    assert await b.until(VMS, "demo", lambda found: found.state == "running")


async def test_without_a_move_there_is_nothing_to_take_over(sites):
    a, _ = sites
    await a.boot_small()
    with pytest.raises(ConflictError, match="never handed over"):
        await a.controller.vms.take_over("demo", ATTEST)
    with pytest.raises(ResourceUnknownError):
        await a.controller.vms.take_over("nobody", ATTEST)

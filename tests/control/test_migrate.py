"""Two whole clusters move a real guest there and back."""

import pytest

from novacron.control.kinds import MIGRATIONS, PEERS, VMS
from novacron.protocol.migration import MigrationPolicy
from support.clusters import on_qemu, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)


@pytest.fixture
async def sites(short_dir, accelerator_file, guest_files):
    async with two_clusters(short_dir, on_qemu(accelerator_file)) as (a, b):
        await a.add_images(guest_files)
        yield a, b


@pytest.mark.xdist_group("qemu-1")
async def test_a_vm_moves_to_the_other_cluster_and_back(sites):
    a, b = sites
    vm = await a.boot()
    there = await a.migrate("demo", "site-b", QUICK)
    ended = await a.ended(there.id)
    assert (ended.outcome, ended.problem) == ("succeeded", None)
    assert ended.summary.verified
    arrived = await b.until(VMS, "demo", lambda found: found.state == "running")
    assert arrived.id == vm.id
    assert arrived.owner_epoch > vm.owner_epoch
    await a.until(VMS, vm.id, None)
    assert (await b.ended(there.id)).outcome == "succeeded"
    async with b.console("demo") as guest:
        assert (await guest.check("there"))["errors"] == 0
    await a.until(MIGRATIONS, there.id, lambda m: m.phase == "done")

    back = await b.migrate("demo", "site-a", QUICK)
    ended = await b.ended(back.id)
    assert ended.outcome == "succeeded"
    assert ended.summary.wire_bytes < 0.05 * ended.summary.guest_bytes
    await a.until(VMS, "demo", lambda found: found.state == "running")
    async with a.console("demo") as guest:
        found = await guest.check("back")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


@pytest.mark.xdist_group("qemu-1")
async def test_the_second_vm_of_an_image_costs_a_fraction_of_the_first(sites):
    a, b = sites
    wire = []
    for name in ("first", "second"):
        await a.boot(name)
        ended = await a.ended((await a.migrate(name, "site-b", QUICK)).id)
        assert ended.outcome == "succeeded", ended.problem
        await b.until(VMS, name, lambda found: found.state == "running")
        async with b.console(name) as guest:
            found = await guest.check(name)
        assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
        wire.append(ended.summary.wire_bytes)
    assert wire[1] < 0.5 * wire[0], wire


@pytest.mark.xdist_group("qemu-2")
async def test_within_the_window_a_migration_is_rolled_back_without_loss(sites):
    a, b = sites
    await a.boot()
    there = await a.migrate("demo", "site-b", MigrationPolicy(verify_window_ms=600_000))
    await a.ended(there.id)
    async with b.console("demo") as guest:
        before = await guest.check("there")
    await a.controller.migrations.rollback(there.id)
    await a.until(MIGRATIONS, there.id, lambda m: m.outcome == "rolled_back")
    await a.until(VMS, "demo", lambda found: found.state == "running")
    async with a.console("demo") as guest:
        after = await guest.check("back")
    assert (after["errors"], after["lost"], after["doubled"]) == (0, 0, 0)
    assert after["records"] > before["records"]


@pytest.mark.xdist_group("qemu-1")
async def test_a_guest_whose_agent_is_silent_comes_back_by_itself_without_loss(sites):
    a, b = sites
    await a.boot()
    there = await a.migrate("demo", "site-b", MigrationPolicy(verify="agent", verify_within_ms=500))
    first = await a.ended(there.id)
    assert (first.outcome, first.summary.verified, first.summary.lifeless) == ("unverified", False, False)
    await a.until(MIGRATIONS, there.id, lambda found: found.outcome == "rolled_back")
    await a.until(VMS, "demo", lambda found: found.state == "running")
    async with a.console("demo") as guest:
        found = await guest.check("back")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    await b.until(VMS, "demo", None)


@pytest.mark.xdist_group("qemu-2")
async def test_a_guest_whose_qemu_is_killed_within_the_window_goes_on_at_its_source(sites):
    a, b = sites
    vm = await a.boot()
    there = await a.ended((await a.migrate("demo", "site-b", MigrationPolicy(verify_window_ms=600_000))).id)
    (machine,) = await b.agents["node-1"][0]._driver.adopt(vm.id)
    await machine.process.kill()
    record = await a.until(MIGRATIONS, there.id, lambda found: found.phase == "done")
    assert (record.outcome, record.problem.code) == ("rolled_back", "guest_died")
    assert record.lost_since > there.started_at
    await a.until(VMS, "demo", lambda found: found.state == "running")
    async with a.console("demo") as guest:
        found = await guest.check("back")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def test_both_sides_of_a_join_know_each_other(sites):
    a, b = sites
    await a.until(PEERS, "site-b", lambda peer: peer.state == "joined")
    await b.until(PEERS, "site-a", lambda peer: peer.state == "joined")

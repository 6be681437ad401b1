"""Programs of the nodes' operators run at the moments of a migration; only ``arriving`` may refuse it."""

import asyncio

import pytest

from novacron.control.kinds import MIGRATIONS, VMS
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.rest import NicRequest
from support.clusters import in_memory, put_program, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)
MOMENTS = ("arriving", "arrived", "left", "released", "returned")
MAC = "52:54:00:00:00:07"


@pytest.fixture
async def sites(short_dir):
    """Two clusters, where every hook of every moment says so in one file."""
    async with two_clusters(short_dir, in_memory()) as (a, b):
        for site in (a, b):
            for moment in MOMENTS:
                script = f'echo "$CLUSTER/$NODE $MOMENT $VM_NAME $VM_MACS $VM_BRIDGES" >> {short_dir}/said'
                put_program(site.hooks_dir("node-1"), moment, script)
        yield a, b


def said(directory):
    """Site and moment, in their order."""
    path = directory / "said"
    lines = path.read_text().splitlines() if path.exists() else []
    assert all(line.split()[2:] == ["demo", MAC, "-"] for line in lines), lines
    return [(line.split("/")[0], line.split()[1]) for line in lines]


async def until_said(directory, *wanted):
    async with asyncio.timeout(30):
        while not set(wanted) <= set(said(directory)):  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.01)


async def boot(a):
    return await a.boot_small(nics=(NicRequest(mac=MAC),))


async def test_every_moment_of_a_move_has_its_hooks_where_it_happens(sites, short_dir):
    a, b = sites
    await boot(a)
    move = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
    assert (move.outcome, move.notes) == ("succeeded", ())
    await until_said(short_dir, ("site-a", "released"))
    first, *between, last = said(short_dir)
    assert (first, last) == (("site-b", "arriving"), ("site-a", "released"))
    assert sorted(between) == [("site-a", "left"), ("site-b", "arrived")]
    await b.until(VMS, "demo", lambda found: found.state == "running")


async def test_a_vm_does_not_come_where_a_hook_does_not_let_it(sites, short_dir):
    a, b = sites
    await boot(a)
    put_program(b.hooks_dir("node-1"), "arriving-net", "echo there is no bridge for it; exit 4")
    move = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
    assert (move.outcome, move.problem.code, move.retried_by) == ("failed", "hook_failed", None)
    assert move.problem.cause == "the hook arriving-net of site-b/node-1 failed: exit code 4: there is no bridge for it"
    assert b.agents["node-1"][0]._journal.find_attempt(move.id) is None
    await until_said(short_dir, ("site-a", "returned"), ("site-b", "left"))
    await a.until(VMS, "demo", lambda found: found.state == "running" and found.migration_id is None)


async def test_a_hook_that_fails_later_is_noted_and_changes_nothing(sites):
    a, b = sites
    await boot(a)
    put_program(b.hooks_dir("node-1"), "arrived.route", "echo no such router; exit 1")
    put_program(a.hooks_dir("node-1"), "left-route", "echo no such route; exit 2")
    move = await a.migrate("demo", "site-b", QUICK)
    assert (await a.ended(move.id)).outcome == "succeeded"
    noted = await a.until(MIGRATIONS, move.id, lambda found: len(found.notes) == 2)
    assert sorted(noted.notes) == [
        "the hook arrived.route of site-b/node-1 failed: exit code 1: no such router",
        "the hook left-route of site-a/node-1 failed: exit code 2: no such route",
    ]
    there = await b.until(MIGRATIONS, move.id, lambda found: found.notes)
    assert any(note.startswith("the hook arrived.route") for note in there.notes)


async def test_a_vm_that_stays_or_comes_back_has_returned(sites, short_dir):
    a, b = sites
    vm = await boot(a)
    move = await a.migrate("demo", "site-b", MigrationPolicy(bandwidth_bytes_s=1000))
    await a.until(MIGRATIONS, move.id, lambda found: found.phase == "copy")
    (machine,) = await a.agents["node-1"][0]._driver.adopt(vm.id)
    await a.controller.migrations.cancel(move.id)
    await a.ended(move.id)
    await until_said(short_dir, ("site-a", "returned"), ("site-b", "left"))
    assert said(short_dir).count(("site-a", "returned")) == 1
    announced = machine.announced
    assert announced > 0
    (short_dir / "said").unlink()

    await a.until(VMS, "demo", lambda found: found.migration_id is None)
    move = await a.migrate("demo", "site-b", MigrationPolicy(verify_window_ms=600_000))
    await a.ended(move.id)
    (there,) = await b.agents["node-1"][0]._driver.adopt(vm.id)
    assert there.announced == 1
    await there.kill()
    await a.until(MIGRATIONS, move.id, lambda found: found.outcome == "rolled_back")
    await until_said(short_dir, ("site-a", "returned"), ("site-b", "left"))
    assert machine.announced > announced


async def test_a_moment_has_its_time_for_all_of_its_hooks_together(sites):
    a, b = sites
    await boot(a)
    operator = b.agents["node-1"][0]._hooks._operator
    object.__setattr__(operator, "hook_timeout_s", 0.5)
    put_program(b.hooks_dir("node-1"), "arrived-1", "sleep 600")
    put_program(b.hooks_dir("node-1"), "arrived-2", "exit 0")
    move = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
    assert move.outcome == "succeeded"
    assert [note.split(" of ")[0] for note in move.notes] == ["the hook arrived-1", "the hook arrived-2"]

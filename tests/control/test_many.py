"""Many VMs, and hosts of every kind, on drivers in memory: the control plane and the data plane above them are real."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.core.errors import NovaCronError
from novacron.core.units import GIB, MIB
from novacron.hypervisor.memory.driver import MemoryHost
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.node import Orphan
from novacron.protocol.rest import DiskRequest, ResizeRequest
from support.clusters import cluster, in_memory, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)
MANY = 24


@asynccontextmanager
async def to_a_host(directory, host: MemoryHost):
    """A working VM at site-a, and a site-b whose only host is this one."""
    async with two_clusters(directory, in_memory(site_b=host)) as (a, b):
        await a.boot_small()
        yield a, b


async def there_and_back(a, b, name: str) -> None:
    """What a VM left at site-b lies there when it is back."""
    assert (await a.ended((await a.migrate(name, "site-b", QUICK)).id)).outcome == "succeeded"
    await b.until(VMS, name, lambda found: found.state == "running")
    back = await b.migrate(name, "site-a", QUICK)
    assert (await b.ended(back.id)).outcome == "succeeded"
    await b.until(MIGRATIONS, back.id, lambda move: move.phase == "done")
    await a.until(VMS, name, lambda found: found.state == "running")


async def test_many_vms_move_at_once_between_clusters_of_several_nodes(short_dir):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2", "node-3")) as (a, b):
        names = [f"vm-{number}" for number in range(MANY)]
        await asyncio.gather(*(a.boot_small(name) for name in names))
        begun = [await a.migrate(name, "site-b", QUICK) for name in names]
        ended = await asyncio.gather(*(a.ended(move.id) for move in begun))
        assert [move.outcome for move in ended] == ["succeeded"] * MANY, [move.problem for move in ended]
        for name in names:
            await b.until(VMS, name, lambda found: found.state == "running")
            async with b.console(name) as guest:
                found = await guest.check("there")
            assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
        assert await a.database.read(lambda tx: list(VMS.every(tx))) == []


@pytest.mark.parametrize(
    ("host", "code", "said"),
    [
        (MemoryHost(machine_types=("pc-q35-7.1",)), "no_room", "node-1 has no machine type pc-q35-7.2"),
        (MemoryHost(memory_bytes=64 * MIB), "no_room", "node-1 has 64 MiB of memory free, 80 MiB are needed"),
        (MemoryHost(disk_bytes=MIB), "no_room", "node-1 has 1 MiB of disk free, 4 MiB are needed"),
    ],
    ids=["machine", "memory", "disk"],
)
async def test_what_the_other_side_cannot_take_is_refused_and_the_vm_runs_on(short_dir, host, code, said):
    async with to_a_host(short_dir, host) as (a, b):
        move = await a.migrate("demo", "site-b", QUICK)
        ended = await a.ended(move.id)
        assert (ended.outcome, ended.problem.code, ended.problem.next_command) == ("failed", code, "novacron node list")
        assert said in ended.problem.cause
        vm = await a.until(VMS, "demo", lambda found: found.migration_id is None)
        assert vm.state == "running"
        async with a.console("demo") as guest:
            assert (await guest.check("still"))["errors"] == 0
        assert await b.database.read(lambda tx: MIGRATIONS.find(tx, move.id)) is None


async def test_a_vm_whose_disk_has_grown_while_it_runs_moves_and_comes_back(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        for here, there, size in ((a, b, 8), (b, a, 12)):
            await here.controller.vms.resize("demo", ResizeRequest(disks={"disk0": size * MIB}))
            move = await here.ended((await here.migrate("demo", there.name, QUICK)).id)
            assert move.outcome == "succeeded", move.problem
            vm = await there.until(VMS, "demo", lambda found: found.state == "running")
            assert vm.spec.disks[0].size_bytes == size * MIB
            async with there.console("demo") as guest:
                assert (await guest.check("there"))["errors"] == 0


async def test_a_name_that_is_taken_at_the_other_side_is_refused(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        await b.boot_small()
        ended = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        assert (ended.outcome, ended.problem.code) == ("failed", "name_taken")


async def test_a_vm_moves_between_the_nodes_of_one_cluster(short_dir):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2")) as (a, _):
        vm = await a.boot_small(node="node-1")
        ended = await a.ended((await a.migrate("demo", "/node-2", QUICK)).id)
        assert (ended.outcome, ended.source_node, ended.target_node) == ("succeeded", "node-1", "node-2")
        moved = await a.until(VMS, "demo", lambda found: found.node_id != vm.node_id and found.state == "running")
        assert moved.migration_id is None
        with pytest.raises(NovaCronError, match="already"):
            await refused(a, "site-a")
        back = await a.ended((await a.migrate("demo", "site-a/node-1", QUICK)).id)
        assert back.outcome == "succeeded"


async def refused(site, to: str) -> None:
    await site.migrate("demo", to, QUICK)


async def test_what_cannot_move_says_why(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, _):
        await a.controller.vms.pause("demo")
        paused = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        assert paused.outcome == "succeeded"
        await a.boot_small("off", start=True)
        slow = MigrationPolicy(bandwidth_bytes_s=10_000)
        under_way = await a.migrate("off", "site-b", slow)
        with pytest.raises(NovaCronError, match="is migrating"):
            await a.migrate("off", "site-b", slow)
        await a.controller.migrations.cancel(under_way.id)
        assert (await a.ended(under_way.id)).outcome == "cancelled"
        with pytest.raises(NovaCronError, match="has ended: cancelled"):
            await a.controller.migrations.cancel(under_way.id)


async def test_a_host_that_is_full_is_said_to_be(short_dir):
    async with two_clusters(short_dir, in_memory(site_a=MemoryHost(memory_bytes=GIB))) as (a, _):
        with pytest.raises(NovaCronError, match="no node can take VM big: node-1 has 1 GiB of memory free"):
            await a.boot_small("big", memory_bytes=2 * GIB)
        with pytest.raises(NovaCronError, match="of disk free"):
            await a.boot_small("wide", disks=(DiskRequest(1 << 50),))


async def test_a_node_that_is_silent_for_a_while_is_waited_for(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        await b.stop_node("node-1")
        await b.until(NODES, "node-1", lambda node: node.state == "unreachable")
        move = await a.migrate("demo", "site-b", QUICK)
        await a.until(MIGRATIONS, move.id, lambda found: found.epoch or found.phase == "prepare")
        await b.start_node("node-1")
        assert (await a.ended(move.id)).outcome == "succeeded"


async def test_what_vms_left_makes_room_for_others_the_oldest_first(short_dir):
    async with two_clusters(short_dir, in_memory(site_b=MemoryHost(disk_bytes=10 * MIB))) as (a, b):
        vms = {name: (await a.boot_small(name)).id for name in ("first", "second", "third")}
        for name in ("first", "second"):
            await there_and_back(a, b, name)
        driver = b.agents["node-1"][0]._driver
        assert sorted(driver.vms()) == sorted([vms["first"], vms["second"]])
        assert (await a.ended((await a.migrate("third", "site-b", QUICK)).id)).outcome == "succeeded"
        assert sorted(driver.vms()) == sorted([vms["second"], vms["third"]])
        again = await a.ended((await a.migrate("first", "site-b", QUICK)).id)
        assert again.outcome == "succeeded"
        async with b.console("first") as guest:
            assert (await guest.check("again"))["errors"] == 0


async def test_what_is_left_of_an_older_attempt_never_takes_the_place_of_the_vms_disks(short_dir, monkeypatch):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        slow = await a.migrate("demo", "site-b", MigrationPolicy(bandwidth_bytes_s=1000))
        await a.until(MIGRATIONS, slow.id, lambda move: move.phase == "copy")
        await a.controller.migrations.cancel(slow.id)
        await a.ended(slow.id)
        again = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        assert again.outcome == "succeeded"
        agent, asked = b.agents["node-1"][0], []

        async def end_incoming(_vm_id, _instance, *, keep_disks):
            asked.append(keep_disks)

        monkeypatch.setattr(agent._driver, "end_incoming", end_incoming)
        await agent._incoming.drop(agent._journal.attempt(slow.id))
        monkeypatch.undo()
        assert asked == [False]


async def test_a_migration_that_broke_off_says_how_to_go_on(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        move = await a.migrate("demo", "site-b", MigrationPolicy(bandwidth_bytes_s=1000, retry_for_ms=0))
        await a.until(MIGRATIONS, move.id, lambda found: found.phase == "copy")
        await b.stop_node("node-1")
        ended = await a.ended(move.id)
        assert (ended.outcome, ended.problem.code, ended.retried_by) == ("failed", "connection_broken", None)
        assert ended.problem.next_command.startswith("novacron migrate demo --to site-b")
        await b.start_node("node-1")
        assert (await a.ended((await a.migrate("demo", "site-b", QUICK)).id)).outcome == "succeeded"


async def test_a_vm_that_settled_is_in_the_records_of_its_new_cluster_at_once(short_dir):
    async with to_a_host(short_dir, MemoryHost()) as (a, b):
        agent, _ = b.agents["node-1"]
        agent._events.publish = lambda _: None  # it tells nothing by itself
        move = await a.migrate("demo", "site-b", QUICK)
        assert (await a.ended(move.id)).outcome == "succeeded"
        assert (await b.database.read(lambda tx: VMS.get(tx, "demo"))).value.state == "running"


async def test_a_vm_that_comes_back_meanwhile_is_not_evicted(short_dir, monkeypatch):
    async with to_a_host(short_dir, MemoryHost(disk_bytes=10 * MIB)) as (a, b):
        await there_and_back(a, b, "demo")
        agent = b.agents["node-1"][0]
        look = agent._driver.capabilities

        async def come_before_the_look():
            monkeypatch.undo()
            assert (await a.ended((await a.migrate("demo", "site-b", QUICK)).id)).outcome == "succeeded"
            return await look()

        monkeypatch.setattr(agent._driver, "capabilities", come_before_the_look)
        await agent._cache.make_room(GIB, keep="another")
        async with b.console("demo") as guest:
            assert (await guest.check("there"))["errors"] == 0


async def test_a_node_says_in_its_record_what_it_found_at_its_start(short_dir):
    async with cluster("site-a", short_dir, in_memory()) as a:
        await a.boot_small()
        stray = a.agents["node-1"][0]._driver.ram_file("vm-unknown", "migration-1")
        await a.stop_node("node-1")
        stray.write_bytes(b"half a guest")
        await a.start_node("node-1")
        node = await a.until(NODES, "node-1", lambda found: found.orphans)
        assert node.orphans == (Orphan(str(stray), "RAM of no VM", removed=True),)
        assert not stray.exists()
        async with a.console("demo") as guest:
            assert (await guest.check("still"))["errors"] == 0


async def test_an_older_word_of_a_node_never_replaces_a_newer_one(short_dir):
    async with cluster("site-a", short_dir, in_memory()) as a:
        vm = await a.boot_small()
        agent = a.agents["node-1"][0]
        running = await agent._vms.look(vm.id)
        await a.controller.vms.pause("demo")
        await a.controller.nodes.note(running, vm.node_id)
        assert (await a.database.read(lambda tx: VMS.get(tx, "demo"))).value.state == "paused"
        await a.stop_node("node-1")
        await a.start_node("node-1")
        await a.controller.vms.resume("demo")
        await a.until(VMS, "demo", lambda found: found.state == "running")


async def test_two_that_leave_by_one_link_say_how_much_of_it_each_has(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        bound = MigrationPolicy(bandwidth_bytes_s=1000, verify_window_ms=0)
        for name, priority in (("one", 0), ("two", 3)):
            await a.boot_small(name)
            await a.migrate(name, "site-b", msgspec.structs.replace(bound, priority=priority))
        for name, priority in (("one", 0), ("two", 3)):
            move = (await a.database.read(lambda tx, vm=name: VMS.get(tx, vm))).value.migration_id
            found = await a.until(MIGRATIONS, move, lambda move: 0.2 < move.progress.link_share < 0.8)
            assert found.priority == priority
            await a.controller.migrations.cancel(move)

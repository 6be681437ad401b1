"""Nodes taken out of service, and back, on drivers in memory."""

from novacron.control.kinds import BATCHES, NODES, VMS
from novacron.protocol.node import VmRef
from novacron.protocol.rest import DrainRequest, StopRequest
from support.batches import QUICK, SLOW, begun, ended, history, most_at_once, outcomes, refusal
from support.clusters import cluster, in_memory, two_clusters


async def test_a_drained_node_is_empty_and_takes_no_vm_until_it_is_undrained(short_dir):
    async with cluster("site-a", short_dir, in_memory(), nodes=("node-1", "node-2", "node-3")) as a:
        control = a.controller
        vms = [f"vm-{number}" for number in range(4)]
        for name in (*vms, "off"):
            await a.boot_small(name, node="node-1")
        await control.vms.stop("off", StopRequest(force=True))
        batch = await control.maintenance.drain("node-1", DrainRequest(policy=QUICK))
        assert (await a.database.read(lambda tx: NODES.get(tx, "node-1"))).value.drain == "draining"
        assert (await control.maintenance.drain("node-1", DrainRequest(policy=QUICK))).id == batch.id
        assert (await ended(a, batch.id)).outcome == "succeeded"
        assert await outcomes(a, batch.id) == {**dict.fromkeys(vms, "succeeded"), "off": "stays"}
        assert most_at_once(await history(a)) == (2, 1)
        drained = await a.until(NODES, "node-1", lambda node: node.drain == "drained")
        for name in vms:
            vm = await a.until(VMS, name, lambda found: found.state == "running")
            assert vm.node_id != drained.id
            async with a.console(name) as guest:
                assert (await guest.check("there"))["errors"] == 0
        await a.stop_node("node-1")
        await a.start_node("node-1")
        assert "node-1 is drained" in (await refusal(a.boot_small("new", node="node-1"))).cause
        assert (await a.ended((await a.migrate("vm-0", "/node-1", QUICK)).id)).problem.code == "no_room"
        refused = await refusal(control.vms.start("off"))
        assert (refused.code, refused.next_command) == ("node_drained", "novacron node undrain node-1")
        await control.maintenance.undrain("node-1")
        assert (await control.vms.start("off")).state == "running"


async def test_a_node_is_drained_to_a_peer_though_the_controller_is_started_again(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        vms = ["one", "two", "three"]
        for name in vms:
            await a.boot_small(name)
        batch = await a.controller.maintenance.drain("node-1", DrainRequest("site-b", 1, policy=QUICK))
        await a.until(BATCHES, batch.id, lambda found: any(move.migration_id for move in found.moves))
        await a.stop_controller()
        await a.start_controller()
        assert (await ended(a, batch.id)).outcome == "succeeded"
        assert most_at_once(await history(a))[0] == 1
        for name in vms:
            await b.until(VMS, name, lambda found: found.state == "running")
        assert (await a.database.read(lambda tx: NODES.get(tx, "node-1"))).value.drain == "drained"


async def test_what_runs_on_a_draining_node_after_the_start_moves_too_and_undrain_ends_it(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        control = a.controller
        await a.boot_small("slow")
        await a.boot_small("late")
        await control.vms.stop("late", StopRequest(force=True))
        by_hand = await a.migrate("slow", "site-b", SLOW)
        batch = await control.maintenance.drain("node-1", DrainRequest("site-b", 2, policy=SLOW))
        await a.until(BATCHES, batch.id, lambda found: [move.phase for move in found.moves] == ["held"])
        await control.migrations.cancel(by_hand.id)
        await a.until(BATCHES, batch.id, lambda found: found.moves[0].migration_id, 20)
        refused = await refusal(control.maintenance.drain("node-1", DrainRequest()))
        assert (refused.code, refused.next_command) == ("batch_refused", f"novacron batch cancel {batch.id}")
        late = (await a.database.read(lambda tx: VMS.get(tx, "late"))).value
        await control.vms._ask(late, "vm.start", VmRef(late.id))  # as one that was asked for just before the drain
        await begun(a, "late")
        node = await control.maintenance.undrain("node-1")
        assert node.drain == ""
        assert (await ended(a, batch.id)).outcome == "cancelled"
        for name in ("slow", "late"):
            vm = await a.until(VMS, name, lambda found: found.migration_id is None)
            assert vm.state == "running"
        assert (await a.database.read(lambda tx: NODES.get(tx, "node-1"))).value.drain == ""
        assert await b.database.read(lambda tx: list(VMS.every(tx))) == []


async def test_a_vm_without_a_node_to_go_to_waits_for_a_silent_one_and_says_so(short_dir):
    async with cluster("site-a", short_dir, in_memory(), nodes=("node-1", "node-2")) as a:
        await a.boot_small("demo", node="node-1")
        await a.stop_node("node-2")
        await a.until(NODES, "node-2", lambda node: node.state == "unreachable")
        batch = await a.controller.maintenance.drain("node-1", DrainRequest(policy=QUICK))
        waits = await a.until(BATCHES, batch.id, lambda found: any(move.problem for move in found.moves))
        assert "node-2 is unreachable" in waits.moves[0].problem.cause
        await a.start_node("node-2")
        assert (await ended(a, batch.id)).outcome == "succeeded"


async def test_a_drain_that_leaves_a_vm_is_not_done_and_may_be_asked_again(short_dir):
    async with cluster("site-a", short_dir, in_memory(), nodes=("node-1", "node-2")) as a:
        maintenance = a.controller.maintenance
        await a.boot_small("demo", node="node-1")
        await maintenance.drain("node-2", DrainRequest(policy=QUICK))
        await a.until(NODES, "node-2", lambda node: node.drain == "drained")
        batch = await ended(a, (await maintenance.drain("node-1", DrainRequest(policy=QUICK))).id)
        assert (batch.outcome, batch.moves[0].problem.code) == ("failed", "no_room")
        assert (await a.database.read(lambda tx: NODES.get(tx, "node-1"))).value.drain == "draining"
        await maintenance.undrain("node-2")
        again = await maintenance.drain("node-1", DrainRequest(policy=QUICK))
        assert (await ended(a, again.id)).outcome == "succeeded"
        await a.until(NODES, "node-1", lambda node: node.drain == "drained")


async def test_a_node_is_removed_once_it_has_nothing_and_serves_no_more(short_dir):
    async with cluster("site-a", short_dir, in_memory(), nodes=("node-1", "node-2")) as a:
        maintenance = a.controller.maintenance
        await a.boot_small("demo", node="node-1")
        refused = await refusal(maintenance.remove("node-1"))
        assert (refused.code, refused.next_command) == ("node_in_use", "novacron node drain node-1")
        assert "serves" in (await refusal(maintenance.remove("node-2"))).cause
        itself = await refusal(maintenance.drain("node-1", DrainRequest("/node-1")))
        assert (itself.code, itself.exit_code) == ("invalid_input", 2)
        await a.stop_node("node-2")
        await a.until(NODES, "node-2", lambda node: node.state == "unreachable")
        await maintenance.remove("node-2")
        await a.until(NODES, "node-2", None)
        assert "no node 'node-2'" in (await refusal(a.boot_small("new", node="node-2"))).cause

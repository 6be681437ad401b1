"""Many VMs sent to one place, on drivers in memory."""

import msgspec
import pytest

from novacron.control import moves
from novacron.control.kinds import BATCHES, MIGRATIONS, VMS
from novacron.control.scheduler import place
from novacron.core.errors import NovaCronError
from novacron.core.ids import NodeId
from novacron.core.units import GIB, MIB
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.plan import Interval, Prediction
from novacron.protocol.resources import BatchMove, Node
from novacron.protocol.rest import BatchRequest, StopRequest
from novacron.protocol.vm import HostCapabilities, VmSpec
from support.batches import QUICK, SLOW, URGENT, begun, ended, history, outcomes, refusal
from support.clusters import cluster, in_memory, two_clusters


async def test_a_batch_goes_on_without_the_vm_that_fails_the_smallest_first(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await b.boot_small("taken")
        for name, size in (("large", 32 * MIB), ("small", 16 * MIB), ("taken", 24 * MIB)):
            await a.boot_small(name, memory_bytes=size)
        await a.boot_small("off")
        await a.controller.vms.stop("off", StopRequest(force=True))
        request = BatchRequest("site-b", ("large", "taken", "off", "small"), concurrency=1, policy=QUICK)
        batch = await ended(a, (await a.controller.batches.start(request)).id)
        assert batch.outcome == "partial"
        assert [(move.vm_name, move.outcome) for move in batch.moves] == [
            ("small", "succeeded"),
            ("large", "succeeded"),
            ("off", "failed"),
            ("taken", "failed"),
        ]
        codes = {move.vm_name: move.problem.code for move in batch.moves if move.problem}
        assert codes == {"off": "migration_refused", "taken": "name_taken"}
        order = list(dict.fromkeys(move.vm_name for move in await history(a) if move.direction == "outgoing"))
        assert order == ["small", "large", "taken"]
        assert (await a.database.read(lambda tx: VMS.get(tx, "taken"))).value.state == "running"


async def test_a_cancelled_batch_gives_up_what_is_under_way_and_begins_no_more(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        vms = ["one", "two", "three"]
        for name in vms:
            await a.boot_small(name)
        request = BatchRequest("site-b", node="node-1", concurrency=1, policy=SLOW)
        batch = await a.controller.batches.start(request)
        first = await begun(a, "one")
        await a.controller.batches.cancel(batch.id)
        assert (await ended(a, batch.id)).outcome == "cancelled"
        assert await outcomes(a, batch.id) == dict.fromkeys(vms, "cancelled")
        assert {move.id for move in await history(a)} == {first.id}
        assert (await refusal(a.controller.batches.cancel(batch.id))).code == "batch_refused"
        for name in vms:
            vm = await a.until(VMS, name, lambda found: found.migration_id is None)
            assert vm.state == "running"
        assert await b.database.read(lambda tx: list(VMS.every(tx))) == []


async def test_of_two_batches_at_one_link_the_one_of_higher_priority_goes_first(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        for name in ("low-1", "low-2", "urgent"):
            await a.boot_small(name)
        start = a.controller.batches.start
        low = await start(BatchRequest("site-b", ("low-1", "low-2"), concurrency=1, policy=SLOW))
        holds = await begun(a, "low-1")
        urgent = await start(BatchRequest("site-b", ("urgent",), concurrency=1, policy=URGENT))
        await a.controller.migrations.cancel(holds.id)
        assert (await ended(a, urgent.id)).outcome == "succeeded"
        await begun(a, "low-2")
        assert list(dict.fromkeys(move.vm_name for move in await history(a))) == ["low-1", "urgent", "low-2"]
        await a.controller.batches.cancel(low.id)
        assert (await ended(a, low.id)).outcome == "cancelled"


async def test_a_batch_that_cannot_work_as_it_is_written_is_refused(short_dir):
    async with cluster("site-a", short_dir, in_memory()) as a:
        start = a.controller.batches.start
        assert (await refusal(start(BatchRequest("site-a")))).code == "invalid_input"
        assert (await refusal(start(BatchRequest("site-b", ("x", "y"))))).code == "peer_unknown"
        assert (await refusal(start(BatchRequest("site-a", ("x", "y"))))).cause == "there is no VM 'x'"
        assert (await refusal(start(BatchRequest("/node-9", node="node-1")))).cause == "there is no node 'node-9'"
        assert await a.database.read(lambda tx: list(BATCHES.every(tx))) == []


def test_vms_that_come_together_are_spread_over_the_nodes_that_have_room():
    room = HostCapabilities(machine_types=("pc-q35-7.2",), memory_bytes=GIB, memory_free_bytes=GIB, disk_free_bytes=GIB)
    nodes = [Node(NodeId(f"node-{n}"), name, "", "", room, "ready") for n, name in enumerate(("one", "two"))]
    spec = VmSpec("demo", 1, 16 * MIB)
    assert place(nodes, spec, avoid={"one"}).name == "two"
    assert place(nodes, spec, avoid={"one", "two"}).name == "one"
    with pytest.raises(NovaCronError, match="one is where it is; two is draining"):
        place([nodes[0], msgspec.structs.replace(nodes[1], drain="draining")], spec, source="one")


async def test_a_move_that_breaks_is_followed_to_its_next_attempt_and_says_why_there_is_one(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small("demo")
        policy = MigrationPolicy(bandwidth_bytes_s=500, verify_window_ms=0)
        batch = await a.controller.batches.start(BatchRequest("site-b", node="node-1", policy=policy))
        first = await begun(a, "demo")
        await b.stop_node("node-1")
        broken = await a.until(BATCHES, batch.id, lambda found: found.moves[0].problem is not None)
        assert (broken.moves[0].problem.code, broken.moves[0].outcome) == ("connection_broken", "")
        await b.start_node("node-1")
        move = (await ended(a, batch.id)).moves[0]
        assert (move.outcome, move.problem) == ("succeeded", None)
        again = (await a.database.read(lambda tx: MIGRATIONS.get(tx, move.migration_id))).value
        assert again.attempt > 1
        assert (await a.database.read(lambda tx: MIGRATIONS.get(tx, first.id))).value.retried_by is not None


def test_what_is_through_soonest_goes_first_and_what_nothing_is_known_of_last():
    def move(name, size, takes_ms=None):
        some = Interval(1, 1, 1)
        predicted = Prediction(Interval(takes_ms, takes_ms, takes_ms), some, some) if takes_ms else None
        return BatchMove(f"vm-{name}", name, "node-1", size, predicted)

    given = [move("unknown-large", 50), move("busy", 10, 9000), move("unknown-small", 5), move("idle", 900, 500)]
    assert [one.vm_name for one in moves.in_order(given)] == ["idle", "busy", "unknown-small", "unknown-large"]

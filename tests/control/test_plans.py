"""How migrations would go, and that a plan is applied as it is or not at all; on drivers in memory."""

import msgspec
import pytest

from novacron.control import plans
from novacron.control.errors import PlanStaleError
from novacron.control.kinds import MIGRATIONS, PLANS, VMS
from novacron.control.plans import GOOD_FOR_S
from novacron.core.errors import InvalidInputError, NovaCronError
from novacron.core.units import MIB, format_rate
from novacron.hypervisor.memory.driver import MemoryHost
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.rest import MigrateRequest, PlanRequest
from support.clusters import in_memory, two_clusters

QUICK = MigrationPolicy(verify_window_ms=0)
AUTO = MigrationPolicy(strategy="auto", verify_window_ms=0)


async def planned(site, to: str = "site-b", policy: MigrationPolicy = QUICK):
    return await site.controller.plans.make(PlanRequest("demo", to, policy))


async def applied(site, plan, to: str = "site-b"):
    return await site.controller.migrations.start(MigrateRequest("demo", to, plan_id=plan.id))


def known_there(agent) -> tuple:
    return agent._driver.vms(), agent._journal.attempts()


async def test_a_plan_touches_nothing_and_what_it_foretells_stands_beside_what_came(short_dir):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2")) as (a, b):
        vm = await a.boot_small()
        plan = await planned(a)
        assert (plan.strategy, plan.target_cluster, plan.survey.memory_bytes) == ("stream", "site-b", 16 * MIB)
        assert plan.survey.zero_bytes > 15 * MIB
        assert "by a short probe" in plan.reasons[0]
        assert "Nothing of this VM" in plan.reasons[2]
        assert plan.link.rate_bytes_s > MIB
        assert await a.database.read(lambda tx: VMS.get(tx, "demo").value) == vm
        assert all(known_there(b.agents[name][0]) == ([], []) for name in ("node-1", "node-2"))
        ended = await a.ended((await applied(a, plan)).id)
        assert (ended.outcome, ended.plan_id, ended.predicted) == ("succeeded", plan.id, plan.predicted)
        assert (await b.database.read(lambda tx: MIGRATIONS.get(tx, ended.id).value)).target_node == plan.target_node
        assert ended.summary.total_ms > 0


async def test_a_plan_is_refused_when_the_world_has_changed(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        plan = await planned(a)
        await a.controller.vms.pause("demo")
        with pytest.raises(PlanStaleError, match=r"VM demo is paused, not running") as refused:
            await applied(a, plan, "site-b")
        assert (refused.value.exit_code, refused.value.next_command) == (5, "novacron migrate demo --to site-b --plan")
        vm = await a.database.read(lambda tx: VMS.get(tx, "demo").value)
        assert (vm.migration_id, await a.database.read(lambda tx: list(MIGRATIONS.every(tx)))) == (None, [])
        again = await planned(a)
        with pytest.raises(InvalidInputError, match="a policy of its own"):
            await a.controller.migrations.start(MigrateRequest("demo", "site-b", QUICK, again.id))
        assert (await a.ended((await applied(a, again)).id)).outcome == "succeeded"
        with pytest.raises(NovaCronError):  # it has left
            await applied(a, again)


async def test_everything_that_a_plan_stands_on_is_looked_at(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        vm = await a.boot_small()
        plan = await planned(a)
        to = await a.controller.peers.destination("site-b/node-1")
        plans.check(plan, vm, to, plan.made_at + GOOD_FOR_S)
        change = msgspec.structs.replace
        for changed, said in (
            (change(vm, id="vm-2"), "it is of VM demo"),
            (change(vm, node_id="node-2"), "another node"),
            (change(vm, owner_epoch=vm.owner_epoch + 1), "has moved since"),
            (change(vm, spec=change(vm.spec, vcpus=2)), "another size"),
            (change(vm, state="paused"), "is paused"),
        ):
            with pytest.raises(PlanStaleError, match=said):
                plans.check(plan, changed, to, plan.made_at)
        with pytest.raises(PlanStaleError, match="older than 10 minutes"):
            plans.check(plan, vm, to, plan.made_at + GOOD_FOR_S + 1)
        for other, said in (("site-b/node-2", "not to node-2"), ("/node-2", "goes to site-b, not to site-a")):
            with pytest.raises(PlanStaleError, match=said):
                plans.check(plan, vm, await a.controller.peers.destination(other), plan.made_at)
        assert await b.database.read(lambda tx: list(PLANS.every(tx))) == []


async def test_the_strategy_is_the_plans_where_it_is_left_open(short_dir, monkeypatch):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        monkeypatch.setattr("novacron.migration.prediction.choose", lambda *_: "cold")
        ended = await a.ended((await a.migrate("demo", "site-b", AUTO)).id)
        assert ended.outcome == "succeeded"
        plan = await a.database.read(lambda tx: PLANS.get(tx, ended.plan_id).value)
        assert (plan.strategy, ended.predicted) == ("cold", plan.predicted)
        assert "stands still" in ended.progress.note


async def test_what_lies_at_the_other_side_is_counted_on(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        assert (await a.ended((await a.migrate("demo", "site-b", QUICK)).id)).outcome == "succeeded"
        await b.until(VMS, "demo", lambda found: found.state == "running")
        back = await planned(b, "site-a")
        assert "What this VM was when it came from there" in back.reasons[2]
        assert back.survey.ram_return_bytes < back.survey.ram_wire_bytes


async def test_a_plan_for_what_would_be_refused_is_refused(short_dir):
    async with two_clusters(short_dir, in_memory(site_b=MemoryHost(memory_bytes=64 * MIB))) as (a, b):
        await a.boot_small()
        with pytest.raises(NovaCronError, match="of memory free") as refused:
            await planned(a)
        assert refused.value.code == "no_room"
        await b.stop_node("node-1")
        with pytest.raises(NovaCronError) as silent:
            await planned(a)
        assert silent.value.exit_code == 6


async def test_a_share_of_the_link_becomes_a_rate_by_what_the_plan_takes_the_link_for(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        share = msgspec.structs.replace(QUICK, bandwidth_share=0.5)
        plan = await planned(a, policy=share)
        assert f"of which it may have {format_rate(plan.link.rate_bytes_s / 2)}" in plan.reasons[0]
        settled = plans.settled(plan)
        assert (settled.bandwidth_share, settled.bandwidth_bytes_s) == (None, int(plan.link.rate_bytes_s / 2))
        ended = await a.ended((await a.migrate("demo", "site-b", share)).id)
        assert ended.outcome == "succeeded"
        made = await a.database.read(lambda tx: PLANS.get(tx, ended.plan_id).value)
        assert made.policy.bandwidth_share == 0.5


async def test_a_link_that_was_shared_is_remembered_as_a_whole(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        moved = await a.ended((await a.migrate("demo", "site-b", QUICK)).id)
        half = msgspec.structs.replace(moved.summary, wire_bytes=9 * MIB, bandwidth_bytes_s=1000, link_share=0.25)
        await a.database.write(lambda tx: MIGRATIONS.put(tx, msgspec.structs.replace(moved, summary=half), named=False))
        await a.boot_small("other")
        plan = await a.controller.plans.make(PlanRequest("other", "site-b", QUICK))
        assert plan.link.rate_bytes_s == 4000


async def test_a_bandwidth_that_is_too_low_for_a_probe_is_believed(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, _):
        await a.boot_small()
        plan = await planned(a, policy=msgspec.structs.replace(QUICK, bandwidth_bytes_s=1000))
        assert plan.link.rate_bytes_s == 1000
        assert plan.predicted.total_ms.value > 100_000

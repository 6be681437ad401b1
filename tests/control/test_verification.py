"""A guest that has arrived is looked at, and goes back by itself when it is not well; nothing runs twice."""

import pytest

from novacron.agent.journal import Journal
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.core.ids import MigrationId
from novacron.hypervisor.memory.machine import MemoryMachine
from novacron.migration.errors import HandoverPendingError, JournalError
from novacron.migration.handover import State
from novacron.protocol.migration import MigrationPolicy
from support.clusters import in_memory, put_program, two_clusters

SOON = 200
LONG = MigrationPolicy(verify_window_ms=600_000)
WHOLE = (0, 0, 0)


@pytest.fixture
async def sites(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        yield a, b


async def verdict(site):
    async with site.console("demo") as guest:
        found = await guest.check("after")
    return found["errors"], found["lost"], found["doubled"]


def journal(site) -> Journal:
    return site.agents["node-1"][0]._journal


def put_probe(site, name, script):
    return put_program(site.probes_dir("node-1"), name, script)


async def machine_at(site, vm_id):
    (machine,) = await site.agents["node-1"][0]._driver.adopt(vm_id)
    return machine


async def test_a_guest_whose_agent_does_not_answer_goes_back_by_itself_without_loss(sites):
    a, b = sites
    vm = await a.boot_small()
    there = await a.migrate("demo", "site-b", MigrationPolicy(verify="agent", verify_within_ms=SOON))
    first = await a.ended(there.id)
    assert (first.outcome, first.summary.verified) == ("unverified", False)
    assert first.summary.verdict == "its agent did not answer within 0.2 s"
    assert first.problem.next_command == f"novacron migration watch {first.rolled_back_by} --context site-b"
    record = await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "rolled_back")
    assert record.problem.code == "guest_unverified"
    for site in (a, b):
        back = await site.until(MIGRATIONS, record.rolled_back_by, lambda move: move.outcome)
        assert (back.outcome, back.rolls_back) == ("succeeded", there.id)
    await a.until(VMS, "demo", lambda found: found.state == "running" and found.owner_epoch > vm.owner_epoch + 1)
    assert await verdict(a) == WHOLE
    await b.until(VMS, "demo", None)


async def test_a_guest_that_is_not_verified_stays_where_that_is_asked_for(sites):
    a, b = sites
    await a.boot_small()
    policy = MigrationPolicy(verify="agent", verify_within_ms=SOON, on_unverified="keep")
    there = await a.ended((await a.migrate("demo", "site-b", policy)).id)
    assert (there.outcome, there.rolled_back_by) == ("unverified", None)
    assert there.problem.next_command == f"novacron migration rollback {there.id}"
    assert (await b.ended(there.id)).outcome == "unverified"
    assert await verdict(b) == WHOLE


async def test_a_probe_of_the_nodes_operator_is_tried_until_it_succeeds_and_told_what_it_is_about(sites, short_dir):
    a, b = sites
    vm = await a.boot_small()
    told = short_dir / "told"
    put_probe(b, "web-answers", f"env > {told}.$$; [ $(ls {told}.* | wc -l) -ge 3 ] || exit 7; echo one; echo 200 OK")
    there = await a.ended((await a.migrate("demo", "site-b", MigrationPolicy(probe="web-answers"))).id)
    assert (there.outcome, there.summary.verdict) == ("succeeded", "web-answers: 200 OK")
    facts = dict(line.split("=", 1) for line in min(short_dir.glob("told.*")).read_text().splitlines())
    wanted = {"VM_NAME": "demo", "VM_ID": vm.id, "NODE": "node-1", "CLUSTER": "site-b", "MIGRATION_ID": there.id}
    assert wanted.items() <= facts.items()


async def test_a_probe_that_fails_says_its_last_line_and_the_guest_goes_back(sites):
    a, b = sites
    await a.boot_small()
    put_probe(b, "web-answers", "echo connection refused; exit 7")
    policy = MigrationPolicy(probe="web-answers", verify_within_ms=SOON)
    there = await a.ended((await a.migrate("demo", "site-b", policy)).id)
    assert there.summary.verdict == "the probe web-answers did not succeed: exit code 7: connection refused"
    await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "rolled_back")
    assert await verdict(a) == WHOLE


async def test_a_node_without_the_probe_refuses_before_anything_is_touched(sites):
    a, b = sites
    await a.boot_small()
    put_probe(b, "other", "exit 0")
    put_probe(b, "no-program", "exit 0").chmod(0o600)
    for probe in ("web-answers", "no-program"):
        there = await a.ended((await a.migrate("demo", "site-b", MigrationPolicy(probe=probe))).id)
        assert (there.outcome, there.problem.code, there.retried_by) == ("failed", "probe_unknown", None)
        assert f"no probe {probe} (there: other)" in there.problem.cause
        assert journal(b).find_attempt(there.id) is None
    assert await verdict(a) == WHOLE


async def test_where_the_cluster_chooses_it_is_a_node_that_has_the_probe(short_dir):
    async with two_clusters(short_dir, in_memory(), nodes=("node-1", "node-2")) as (a, b):
        await a.boot_small()
        put_program(b.probes_dir("node-2"), "web-answers", "echo fine")
        await b.stop_node("node-2")
        await b.start_node("node-2")
        await b.until(NODES, "node-2", lambda node: node.probes == ("web-answers",))
        for _ in range(2):
            there = await a.ended((await a.migrate("demo", "site-b", MigrationPolicy(probe="web-answers"))).id)
            assert (there.outcome, there.summary.verdict) == ("succeeded", "web-answers: fine")
            assert (await b.ended(there.id)).target_node == "node-2"
            await a.controller.migrations.rollback(there.id)
            await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "rolled_back")
            await a.until(VMS, "demo", lambda found: found.state == "running" and found.migration_id is None)


async def test_a_guest_whose_qemu_dies_within_the_window_goes_on_at_its_source(sites):
    a, b = sites
    vm = await a.boot_small()
    there = await a.ended((await a.migrate("demo", "site-b", LONG)).id)
    assert there.outcome == "succeeded"
    await a.until(VMS, "demo", None)
    await (await machine_at(b, vm.id)).kill()
    record = await a.until(MIGRATIONS, there.id, lambda move: move.phase == "done")
    assert (record.outcome, record.problem.code) == ("rolled_back", "guest_died")
    assert there.started_at < record.lost_since <= there.started_at + there.summary.total_ms / 1000 + 1
    assert "is lost" in record.problem.cause
    await a.until(VMS, "demo", lambda found: found.state == "running" and found.owner_epoch > vm.owner_epoch + 1)
    await b.until(VMS, "demo", None)
    assert (await b.ended(there.id)).outcome == "rolled_back"
    assert (journal(a).attempt(there.id).state, journal(b).attempt(there.id).state) == (
        State.RECLAIMED,
        State.GIVEN_BACK,
    )
    assert await verdict(a) == WHOLE
    again = await a.ended((await a.migrate("demo", "site-b", MigrationPolicy(verify_window_ms=0))).id)
    assert again.outcome == "succeeded"
    assert await verdict(b) == WHOLE


async def test_a_guest_that_dies_within_the_window_stays_where_that_is_asked_for(sites):
    a, b = sites
    vm = await a.boot_small()
    policy = MigrationPolicy(verify_window_ms=600_000, on_unverified="keep")
    there = await a.ended((await a.migrate("demo", "site-b", policy)).id)
    await (await machine_at(b, vm.id)).kill()
    record = await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "unverified")
    assert (record.problem.code, record.phase) == ("guest_died", "window")
    await b.until(VMS, "demo", lambda found: found.state == "stopped")
    assert journal(b).attempt(there.id).state is State.RUNNING


async def test_where_nothing_is_left_at_the_source_a_guest_that_died_stays_off(sites):
    a, b = sites
    vm = await a.boot_small()
    there = await a.ended((await a.migrate("demo", "site-b", LONG)).id)
    for site in (a, b):
        await (await machine_at(site, vm.id)).kill()
    record = await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "unverified")
    assert record.problem.code == "guest_died"
    assert (journal(a).attempt(there.id).state, journal(b).attempt(there.id).state) == (State.SETTLED, State.RUNNING)
    await b.controller.vms.start("demo")
    assert (await machine_at(b, vm.id)).living


async def test_what_is_recalled_from_a_node_that_is_silent_is_kept_until_there_is_an_answer(sites):
    a, b = sites
    await a.boot_small()
    there = await a.ended((await a.migrate("demo", "site-b", LONG)).id)
    recalls, attempt = a.agents["node-1"][0]._recalls, journal(a).attempt(there.id)
    await b.stop_node("node-1")
    assert (await recalls.look(None, attempt)).state == "silent"
    with pytest.raises(HandoverPendingError):
        await recalls.recall(None, attempt)
    assert journal(a).attempt(there.id).state is State.RECALLED
    with pytest.raises(JournalError):
        await a.agents["node-1"][0]._outgoing.release(None, attempt)
    await b.start_node("node-1")
    assert (await recalls.recall(None, attempt)).state == "settled"  # it lives there
    assert await verdict(b) == WHOLE


async def test_a_guest_that_shut_itself_down_or_was_started_again_has_not_died(sites):
    a, b = sites
    vm = await a.boot_small()
    there = await a.ended((await a.migrate("demo", "site-b", LONG)).id)
    node = await a.until(VMS, "demo", None) or journal(a)
    recalls = a.agents["node-1"][0]._recalls
    assert (await recalls.look(None, node.attempt(there.id))).state == "well"
    await (await machine_at(b, vm.id)).powerdown()
    assert (await recalls.look(None, node.attempt(there.id))).state == "left"
    assert (await recalls.recall(None, node.attempt(there.id))).state == "settled"
    await b.controller.vms.start("demo")
    assert (await recalls.look(None, node.attempt(there.id))).state == "left"
    assert (await recalls.recall(None, node.attempt(there.id))).state == "settled"
    assert (await machine_at(b, vm.id)).living


def lifeless_at(monkeypatch, driver, *, until: int | None = None):
    """Guests of one host do nothing, for so many looks."""
    alive, looks = MemoryMachine.vital_signs, []

    async def vital_signs(machine):
        looks.append(machine)
        if machine.ram_path.parent == driver._ram_dir and (until is None or len(looks) < until):
            return 0.0, 0
        return await alive(machine)

    monkeypatch.setattr(MemoryMachine, "vital_signs", vital_signs)


async def test_a_guest_that_never_did_anything_over_there_goes_on_at_its_source(sites, monkeypatch):
    a, b = sites
    vm = await a.boot_small()
    driver = b.agents["node-1"][0]._driver
    lifeless_at(monkeypatch, driver)
    there = await a.migrate("demo", "site-b", MigrationPolicy(verify_within_ms=SOON, verify_window_ms=0))
    record = await a.until(MIGRATIONS, there.id, lambda move: move.phase == "done")
    assert (record.outcome, record.summary.lifeless) == ("rolled_back", True)
    assert await driver.adopt(vm.id) == []
    await a.until(VMS, "demo", lambda found: found.state == "running")
    assert await verdict(a) == WHOLE


async def test_a_guest_that_comes_to_life_late_loses_nothing_when_it_goes_back(sites, monkeypatch):
    a, b = sites
    await a.boot_small()
    lifeless_at(monkeypatch, b.agents["node-1"][0]._driver, until=6)
    there = await a.migrate("demo", "site-b", MigrationPolicy(verify_within_ms=SOON))
    record = await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "rolled_back")
    assert record.lost_since == 0.0
    back = await b.ended(MigrationId(record.rolled_back_by))
    assert back.outcome == "succeeded"
    assert await verdict(a) == WHOLE


async def test_a_way_back_that_fails_is_told_of_and_may_be_asked_for_again(sites, monkeypatch):
    a, b = sites
    await a.boot_small()
    put_probe(b, "never", "exit 1")
    agent = a.agents["node-1"][0]
    monkeypatch.setattr(agent._journal, "find_claim", lambda _: 1 / 0)  # nothing comes back in
    policy = MigrationPolicy(probe="never", verify_within_ms=SOON, verify_window_ms=600_000, retry_for_ms=0)
    there = await a.migrate("demo", "site-b", policy)
    record = await a.until(MIGRATIONS, there.id, lambda move: move.problem and move.problem.code == "rollback_failed")
    assert record.outcome == "unverified"
    assert await verdict(b) == WHOLE
    monkeypatch.undo()
    again = await a.controller.migrations.rollback(there.id)
    assert again.rolled_back_by != record.rolled_back_by
    await a.until(MIGRATIONS, there.id, lambda move: move.outcome == "rolled_back")
    assert await verdict(a) == WHOLE

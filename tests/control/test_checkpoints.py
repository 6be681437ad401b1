"""Checkpoints from their request to the guest that is back, on drivers in memory; the repository is the real one."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from novacron.agent import checkpoints as agent_checkpoints
from novacron.agent.checkpoint_store import CheckpointStore
from novacron.agent.restores import Restores
from novacron.control.checkpoints import READY
from novacron.control.kinds import CHECKPOINTS, VMS
from novacron.core.errors import ConflictError, InvalidInputError, NovaCronError
from novacron.hypervisor.driver import MachineState
from novacron.migration.capture import Capture
from novacron.migration.disk_capture import BITMAP
from novacron.migration.errors import QemuFailedError
from novacron.migration.revival import Revival
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.rest import CheckpointRequest, NicRequest, RestoreRequest, StopRequest
from support.clusters import cluster, in_memory

QUICK = MigrationPolicy(verify_window_ms=0)


@asynccontextmanager
async def with_vm(directory, **more):
    async with cluster("site-a", directory, in_memory(), **more) as a:
        await a.boot_small()
        yield a


async def made(a, vm: str = "demo", **request):
    """A checkpoint once it is whole."""
    begun = await a.controller.checkpoints.create(vm, CheckpointRequest(**request))
    job = await a.job(begun.job_id)
    assert job.state == "done", job
    return await a.until(CHECKPOINTS, begun.id, lambda one: one.state == READY)


async def restored(a, checkpoint, *, force: bool = False):
    """The job that brought a VM back, ended."""
    begun = await a.controller.checkpoints.restore(checkpoint.id, RestoreRequest(force))
    return await a.job(begun.job_id)


async def look(a, name: str = "demo") -> dict:
    async with a.console(name) as guest:
        found = await guest.check("now")
        assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
        return await guest.wait_for("t")


async def until_later(a, ticks: int) -> dict:
    async with a.console("demo") as guest:
        while (now := await guest.wait_for("t"))["t"] <= ticks:
            pass
        return now


async def machine_of(a, name: str = "demo"):
    vm = (await a.database.read(lambda tx: VMS.get(tx, name))).value
    (machine,) = await a.agents["node-1"][0]._driver.adopt(vm.id)
    return machine


async def nothing_is_left(a) -> None:
    """Of work on checkpoints that has ended, whichever way."""
    agent = a.agents["node-1"][0]
    assert (await machine_of(a)).run_dir.exists()
    assert await (await machine_of(a)).bitmaps_like(BITMAP) == []
    assert agent._driver.unused_ram() == []
    assert not list(agent._data_dir.glob("*-work/*"))


async def test_a_vm_goes_on_after_its_checkpoint_and_comes_back_to_that_instant(short_dir):
    async with with_vm(short_dir) as a:
        before = await look(a)
        checkpoint = await made(a)
        assert checkpoint.facts.running
        assert checkpoint.facts.downtime_ms > 0
        later = await until_later(a, before["t"] + 20)
        await nothing_is_left(a)
        again = await made(a)
        assert again.facts.read_bytes > 4 * again.facts.new_bytes > 0
        assert again.facts.stored_bytes > 0

        await a.controller.vms.stop("demo", StopRequest(force=True))
        job = await restored(a, checkpoint)
        assert job.state == "done", job
        vm = await a.until(VMS, "demo", lambda found: found.state == "running")
        assert vm.owner_epoch == checkpoint.facts.owner_epoch
        async with a.console("demo") as guest:
            first = await guest.wait_for("t")
        assert before["t"] <= first["t"] < later["t"]
        await look(a)
        await nothing_is_left(a)
        await made(a)


async def test_a_vm_that_runs_is_ended_only_by_force(short_dir):
    async with with_vm(short_dir) as a:
        checkpoint = await made(a)
        later = await until_later(a, (await look(a))["t"] + 30)
        with pytest.raises(ConflictError, match="would be lost"):
            await restored(a, checkpoint)
        assert (await restored(a, checkpoint, force=True)).state == "done"
        async with a.console("demo") as guest:
            assert (await guest.wait_for("t"))["t"] < later["t"]
        await look(a)


async def test_a_paused_vm_stays_paused_and_its_checkpoint_comes_back_so(short_dir):
    async with with_vm(short_dir) as a:
        await a.controller.vms.pause("demo")
        checkpoint = await made(a)
        assert not checkpoint.facts.running
        assert await (await machine_of(a)).state() is MachineState.POSTMIGRATE
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        assert "resume demo" in (await a.job(begun.job_id)).problem.next_command
        await a.controller.vms.resume("demo")
        await look(a)
        assert (await restored(a, checkpoint, force=True)).state == "done"
        await a.until(VMS, "demo", lambda vm: vm.state == "paused")
        await a.controller.vms.resume("demo")
        await look(a)


async def test_a_vm_that_is_off_has_nothing_to_take(short_dir):
    async with with_vm(short_dir) as a:
        await a.controller.vms.stop("demo", StopRequest(force=True))
        with pytest.raises(ConflictError, match="runs or is paused"):
            await a.controller.checkpoints.create("demo", CheckpointRequest())


@pytest.mark.parametrize("broken", ["memory", "disks", "load"])
async def test_a_restore_that_breaks_leaves_the_vm_as_it_was(short_dir, monkeypatch, broken):
    async with with_vm(short_dir) as a:
        checkpoint = await made(a)

        async def break_(*_: object) -> None:
            raise QemuFailedError("made to break")

        monkeypatch.setattr(Revival, broken, break_)
        before = await look(a)
        job = await restored(a, checkpoint, force=True)
        assert (job.state, job.problem.cause) == ("failed", "made to break")
        assert (await look(a))["t"] >= before["t"]
        assert (await a.until(CHECKPOINTS, checkpoint.id, lambda one: one.state == READY)).problem.cause
        await nothing_is_left(a)


@pytest.mark.parametrize("step", ["_copy_disks", "_rounds", "_at_one_instant", "store"])
async def test_a_node_that_stops_during_a_checkpoint_lets_the_guest_go_on(short_dir, monkeypatch, step):
    reached = asyncio.Event()
    work = getattr(Capture, step)

    async def work_and_hang(capture):
        await work(capture)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Capture, step, work_and_hang)
    async with with_vm(short_dir) as a:
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        await reached.wait()
        monkeypatch.setattr(Capture, step, work)
        before = None
        await a.stop_node("node-1")
        await a.start_node("node-1")
        assert before is None
        job = await a.job(begun.job_id)
        assert job.state == "failed", job
        assert await a.database.read(lambda tx: CHECKPOINTS.find(tx, begun.id)) is None
        assert await (await machine_of(a)).state() is MachineState.RUNNING
        await look(a)
        await nothing_is_left(a)
        await made(a)


async def test_a_killed_node_lets_the_guest_go_on_when_it_is_back(short_dir, monkeypatch):
    """Nothing of what ends a capture has run: its note is there, and the guest is held."""
    reached = asyncio.Event()

    async def hang(_capture) -> None:
        reached.set()
        await asyncio.Event().wait()

    async def dead(*_args: object, **_more: object) -> None:
        return

    async with with_vm(short_dir) as a:
        agent = a.agents["node-1"][0]
        monkeypatch.setattr(Capture, "_at_one_instant", hang)
        monkeypatch.setattr(agent._checkpoints, "_take_back", dead)
        monkeypatch.setattr(agent._checkpoints._notes, "end", lambda _: None)
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        await reached.wait()
        await a.stop_node("node-1")
        monkeypatch.undo()
        await a.start_node("node-1")
        assert await (await machine_of(a)).state() is MachineState.RUNNING
        assert (await a.job(begun.job_id)).state == "failed"
        await look(a)
        await nothing_is_left(a)


@pytest.mark.parametrize("lives", [True, False])
async def test_a_node_that_stops_once_the_journal_names_what_came_back_ends_the_restore(short_dir, monkeypatch, lives):
    reached = asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with with_vm(short_dir) as a:
        checkpoint = await made(a)
        later = await until_later(a, (await look(a))["t"] + 30)
        monkeypatch.setattr(Restores, "_finish", hang)
        restores = a.agents["node-1"][0]._restores
        begun = await a.controller.checkpoints.restore(checkpoint.id, RestoreRequest(force=True))
        await reached.wait()
        for task in asyncio.all_tasks():  # as a kill does: nothing is waited for
            if "_take_its_place" in repr(task.get_coro()):
                task.cancel()
        if not lives:
            vm = (await a.database.read(lambda tx: VMS.get(tx, "demo"))).value
            for machine in await a.agents["node-1"][0]._driver.adopt(vm.id):
                if not machine.settled:
                    await machine.kill()
        await restores.close()
        await a.stop_node("node-1")
        monkeypatch.undo()
        await a.start_node("node-1")
        assert (await a.job(begun.job_id)).state == "done"
        if not lives:
            await a.until(VMS, "demo", lambda vm: vm.state == "stopped")
            await a.controller.vms.start("demo")
        async with a.console("demo") as guest:
            assert (await guest.wait_for("t"))["t"] < later["t"]
        await look(a)


async def test_what_is_given_up_leaves_the_vm_and_no_checkpoint(short_dir, monkeypatch):
    reached = asyncio.Event()

    async def hang(_capture) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Capture, "store", hang)
    async with with_vm(short_dir) as a:
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        await reached.wait()
        seen = await a.until(CHECKPOINTS, begun.id, lambda one: one.progress.phase == "instant")
        assert seen.progress.total_bytes > 0
        await a.controller.checkpoints.cancel(begun.id)
        assert (await a.job(begun.job_id)).state == "cancelled"
        assert await a.database.read(lambda tx: CHECKPOINTS.find(tx, begun.id)) is None
        await look(a)
        await nothing_is_left(a)
        monkeypatch.undo()
        whole = await made(a)
        with pytest.raises(ConflictError, match="nothing to give up"):
            await a.controller.checkpoints.cancel(whole.id)


async def test_a_deleted_checkpoint_gives_back_what_no_other_one_needs(short_dir):
    async with with_vm(short_dir) as a:
        first, second = await made(a), await made(a)
        repository = await a.agents["node-1"][0]._checkpoints._store.repository()
        whole = sum(size for size, _ in repository.packs().values())
        for checkpoint in (first, second):
            begun = await a.controller.checkpoints.delete(checkpoint.id)
            assert (await a.job(begun.job_id)).state == "done"
            await a.until(CHECKPOINTS, checkpoint.id, None)
            if checkpoint is first:
                assert (await restored(a, second, force=True)).state == "done"
        assert whole > 0
        assert repository.packs() == {}


async def test_the_newest_are_kept_and_those_that_expired_go(short_dir):
    async with with_vm(short_dir) as a:
        old = await made(a, keep_for_ms=1)
        kept = [await made(a) for _ in range(2)]
        await a.until(CHECKPOINTS, old.id, None)
        newest = await made(a, keep=2)
        await a.until(CHECKPOINTS, kept[0].id, None)
        left = await a.database.read(lambda tx: {one.id for one in CHECKPOINTS.every(tx)})
        assert left == {kept[1].id, newest.id}


async def test_within_a_quota_the_oldest_goes_and_the_newest_of_another_vm_never(short_dir, monkeypatch):
    monkeypatch.setattr(agent_checkpoints, "_takes", lambda _, names: 100 * len(names))
    async with with_vm(short_dir) as a:
        await a.boot_small("other")
        other, first = await made(a, "other"), await made(a)
        checkpoints = a.agents["node-1"][0]._checkpoints
        checkpoints._quota_bytes = 250
        second = await made(a)
        await a.until(CHECKPOINTS, first.id, None)
        checkpoints._quota_bytes = 100
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        job = await a.job(begun.job_id)
        assert (job.state, job.problem.code) == ("failed", "repository_full")
        assert "quota" in job.problem.next_command
        repository = await checkpoints._store.repository()
        assert set(repository.manifests()) == {other.id, second.id}
        left = await a.database.read(lambda tx: {one.id for one in CHECKPOINTS.every(tx)})
        assert left == {other.id, second.id}


async def test_a_vm_does_not_move_while_it_is_taken_nor_is_taken_while_it_moves(short_dir, monkeypatch):
    reached, go_on = asyncio.Event(), asyncio.Event()
    rounds = Capture._rounds

    async def wait(capture) -> None:
        reached.set()
        await go_on.wait()
        await rounds(capture)

    monkeypatch.setattr(Capture, "_rounds", wait)
    async with with_vm(short_dir, nodes=("node-1", "node-2")) as a:
        home = (await a.database.read(lambda tx: VMS.get(tx, "demo"))).value.node_id
        begun = await a.controller.checkpoints.create("demo", CheckpointRequest())
        await reached.wait()
        names = {agent._node_id: name for name, (agent, _) in a.agents.items()}
        away = next(name for node, name in names.items() if node != home)
        move = await a.ended((await a.migrate("demo", f"/{away}", QUICK)).id)
        assert (move.outcome, move.problem.code) == ("failed", "vm_state")
        go_on.set()
        assert (await a.job(begun.job_id)).state == "done"
        move = await a.ended((await a.migrate("demo", f"/{away}", QUICK)).id)
        assert move.outcome == "succeeded", move.problem
        await a.until(VMS, "demo", lambda vm: vm.node_id != home and vm.migration_id is None)
        with pytest.raises(ConflictError, match=f"lies at node {names[home]}"):
            await restored(a, begun, force=True)


async def test_a_repository_whose_key_is_lost_is_left_alone(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", tmp_path / "key", tmp_path / "index")
    await store.repository()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").unlink()
    again = CheckpointStore(tmp_path / "checkpoints", tmp_path / "key", tmp_path / "index")
    with pytest.raises(NovaCronError, match="key file"):
        await again.repository()
    assert not (tmp_path / "key").exists()


async def copied(a, checkpoint, name: str = "copy"):
    """The job that made a new VM, ended."""
    begun = await a.controller.checkpoints.restore(checkpoint.id, RestoreRequest(name=name))
    return await a.job(begun.job_id)


async def test_a_new_vm_of_a_checkpoint_goes_on_beside_the_first_with_an_identity_of_its_own(short_dir):
    async with cluster("site-a", short_dir, in_memory()) as a:
        first = await a.boot_small(nics=(NicRequest(),))
        checkpoint = await made(a)
        later = await until_later(a, (await look(a))["t"] + 20)
        job = await copied(a, checkpoint)
        assert job.state == "done", job
        copy = await a.until(VMS, "copy", lambda found: found.state == "running")
        assert copy.id != first.id
        assert copy.spec.nics[0].mac != first.spec.nics[0].mac
        assert (copy.spec.memory_bytes, copy.owner_epoch) == (first.spec.memory_bytes, 1)
        async with a.console("copy") as guest:
            assert (await guest.wait_for("t"))["t"] < later["t"]
        for name in ("demo", "copy"):
            await look(a, name)
        assert (await machine_of(a, "copy")).disks != (await machine_of(a)).disks
        await nothing_is_left(a)


async def test_of_a_vm_that_is_deleted_new_ones_can_be_made_and_each_name_once(short_dir):
    async with with_vm(short_dir) as a:
        checkpoint = await made(a)
        with pytest.raises(NovaCronError, match="demo"):
            await copied(a, checkpoint, "demo")
        with pytest.raises(InvalidInputError, match="--force"):
            await a.controller.checkpoints.restore(checkpoint.id, RestoreRequest(force=True, name="copy"))
        assert (await a.job(await a.controller.vms.delete("demo", force=True))).state == "done"
        assert (await copied(a, checkpoint)).state == "done"
        await look(a, "copy")


async def test_a_new_vm_with_a_card_on_a_bridge_comes_paused(short_dir):
    async with cluster("site-a", short_dir, in_memory()) as a:
        await a.boot_small(nics=(NicRequest("tap", "br0"),))
        assert (await copied(a, await made(a))).state == "done"
        await a.until(VMS, "copy", lambda found: found.state == "paused")
        await a.controller.vms.resume("copy")
        await look(a, "copy")


@pytest.mark.parametrize("broken", ["memory", "disks", "load"])
async def test_of_a_new_vm_that_breaks_nothing_is_left(short_dir, monkeypatch, broken):
    async with with_vm(short_dir) as a:
        checkpoint = await made(a)

        async def breaks(*_):
            raise QemuFailedError("on purpose")

        monkeypatch.setattr(Revival, broken, breaks)
        job = await copied(a, checkpoint)
        assert (job.state, job.problem.cause) == ("failed", "on purpose")
        assert await a.database.read(lambda tx: [vm.name for vm in VMS.every(tx)]) == ["demo"]
        agent = a.agents["node-1"][0]
        assert len(agent._driver.vms()) == len(agent._journal.vms()) == 1
        await look(a)
        await nothing_is_left(a)

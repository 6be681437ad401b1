"""A node that is killed in the middle of something finds it at its next start: what nobody knows goes, a VM is kept."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.agent.errors import JournalLostError
from novacron.core.units import GIB
from novacron.hypervisor.qemu import images
from novacron.hypervisor.qemu.process import Process
from novacron.protocol.node import Nothing, Orphan, VmCreate, VmRef, VmReport
from support.nodes import VM, spec

SUPPORT = Path(__file__).parents[1] / "support"
FOLDER, IMAGES = "novacron.hypervisor.qemu.folder:VmFolder", "novacron.hypervisor.qemu.images"
DRIVER, PROCESS = "novacron.hypervisor.qemu.driver:QemuDriver", "novacron.hypervisor.qemu.process:Process"


@pytest.fixture
def killed(nodes, short_dir):
    """Node ``a`` is killed in the middle of ``work``, once ``function`` has returned, and starts again."""

    async def kill(work: str, function: str) -> tuple[Orphan, ...]:
        await nodes.stop("a")
        dying = [sys.executable, SUPPORT / "dying.py", short_dir / "a", nodes._ram / "a", work, function]
        environment = {**os.environ, "PYTHONPATH": str(SUPPORT.parent)}
        done = await asyncio.to_thread(subprocess.run, dying, env=environment, check=False)
        assert done.returncode == -signal.SIGKILL
        await nodes.start("a")
        return (await nodes.describe("a")).orphans

    return kill


@pytest.fixture
def folder(short_dir):
    return short_dir / "a" / "vms" / VM


async def test_a_vm_that_was_half_made_goes_and_can_be_made_again(nodes, killed, folder):
    (orphan,) = await killed("create", f"{IMAGES}:copy_disk")
    assert (orphan.name, orphan.removed) == (VM, True)
    assert not folder.exists()
    made = await nodes.clients["a"].call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    assert (made.ownership, made.state) == ("owner", "stopped")


async def test_a_whole_vm_that_the_journal_does_not_know_is_kept_until_its_controller_says_what_it_is(
    nodes, killed, folder
):
    (orphan,) = await killed("create", f"{FOLDER}.put_spec")
    assert (orphan.name, orphan.removed) == (VM, False)
    disk = folder / "disks" / "disk0.qcow2"
    before = disk.stat().st_ino
    await nodes.clients["a"].call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    assert disk.stat().st_ino == before


async def test_a_vm_whose_making_was_given_up_meanwhile_goes_by_its_controllers_word(nodes, killed, folder):
    await killed("create", f"{FOLDER}.put_spec")
    await nodes.clients["a"].call("vm.delete", VmRef(VM), Nothing)
    assert not folder.exists()


async def test_ram_that_was_taken_for_a_vm_that_never_came_is_given_back(nodes, killed, folder, short_dir):
    half = short_dir / "a" / "cache" / f"{VM}.new"
    half.write_bytes(b"half an image")
    orphans = await killed("prepare", f"{DRIVER}.reserve_ram")
    assert {Path(orphan.name).name for orphan in orphans} == {f"{VM}.migration-1.ram", half.name}
    assert [*(nodes._ram / "a").iterdir(), *half.parent.iterdir()] == []
    assert not folder.exists()


async def test_a_disk_that_was_laid_over_a_vms_goes_and_what_the_vm_lies_over_stays(nodes, killed, folder):
    await nodes.clients["a"].call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    base, overlay = folder / "disks" / "disk0.qcow2", folder / "disks" / "disk0.in-1.qcow2"
    await images.create_overlay(overlay, base, GIB)
    nodes.agents["a"]._driver._folder(VM).put_disks({"disk0": overlay})
    orphans = await killed("prepare", f"{IMAGES}:create_overlay")
    assert [Path(orphan.name).suffix for orphan in orphans] == [".qcow2", ".ram"]
    assert set((folder / "disks").iterdir()) == {base, overlay}


@pytest.mark.xdist_group("qemu-1")
async def test_a_qemu_whose_start_was_never_noted_ends_and_the_vm_starts(nodes, killed, folder):
    client = nodes.clients["a"]
    await client.call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    (orphan,) = await killed("start", f"{PROCESS}.spawn")
    assert orphan.removed
    assert Process.find(str(folder)) is None
    assert [*(nodes._ram / "a").iterdir(), *(folder / "instances").iterdir()] == []
    assert (await client.call("vm.start", VmRef(VM), VmReport)).state == "running"


async def test_a_node_whose_journal_has_gone_touches_nothing(nodes, folder, short_dir):
    await nodes.clients["a"].call("vm.create", VmCreate(VM, spec(), 1), VmReport)
    await nodes.stop("a")
    journal = short_dir / "a" / "journal.db"
    journal.rename(short_dir / "journal.db")
    with pytest.raises(JournalLostError, match="no journal"):
        await nodes.start("a")
    assert (folder / "disks" / "disk0.qcow2").exists()
    (short_dir / "journal.db").rename(journal)
    await nodes.start("a")
    assert (await nodes.describe("a")).orphans == ()

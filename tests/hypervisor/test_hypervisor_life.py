"""The life of a VM as people expect it, under a real QEMU; what the guest's kernel says is the witness."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from novacron.core.errors import InvalidInputError
from novacron.core.ids import VmId
from novacron.core.units import GIB, MIB
from novacron.hypervisor.errors import (
    BadImageError,
    BridgeError,
    MachineTypeError,
    QemuMissingError,
    VmStateError,
    VmUnknownError,
)
from novacron.hypervisor.spec import CloudInitSeed, DiskSpec, KernelBoot, NicSpec, VmSpec
from support.pair import VM, Pair, console, small_spec

pytestmark = pytest.mark.xdist_group("qemu-2")
LOUD = "console=ttyS0 panic=-1 novacron.seed=7 novacron.hot=64 novacron.cold=64 novacron.rate=100"
SLOW_S = 60
RARP = 0x8035


def loud(**more) -> VmSpec:
    """A small guest whose kernel tells what it finds."""
    boot = KernelBoot("kernel", "initrd", LOUD)
    return msgspec.structs.replace(small_spec(), boot=boot, memory_bytes=96 * MIB, **more)


async def output(*command: str) -> str:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return done.stdout


async def said(machine, text: str) -> str:
    """The console's log once it has ``text``."""
    log = machine.run_dir / "console.log"
    async with asyncio.timeout(SLOW_S):
        while text not in (words := log.read_text(errors="replace")):  # noqa: ASYNC110 - QEMU writes it
            await asyncio.sleep(0.05)
    return words


async def test_cpus_memory_and_disks_grow_and_the_guest_sees_it(make_driver):
    driver = make_driver("a")
    await driver.create(VM, loud())
    bigger = loud(vcpus=2, disks=(DiskSpec("disk0", 2 * GIB, "disk"),))
    grown = await driver.resize(VM, msgspec.structs.replace(bigger, memory_bytes=160 * MIB))
    assert grown.memory_bytes in {160 * MIB, 160 * MIB - 8192}
    machine = await driver.start(VM)
    words = await said(machine, '"t":')
    assert "Brought up 1 node, 2 CPUs" in words
    assert "[vda] 4194304 512-byte logical blocks" in words
    (total,) = re.findall(r"Memory: \d+K/(\d+)K available", words)
    assert 0.98 * grown.memory_bytes < int(total) * 1024 <= grown.memory_bytes
    with pytest.raises(VmStateError, match="runs"):
        await driver.resize(VM, loud(vcpus=1, disks=bigger.disks))
    await driver.resize(VM, msgspec.structs.replace(grown, disks=(DiskSpec("disk0", 3 * GIB, "disk"),)))
    await said(machine, "[vda] new size: 6291456 512-byte logical blocks")
    with pytest.raises(BadImageError, match="only grow"):
        await driver.resize(VM, grown)


async def test_several_disks_and_network_cards_and_a_cloud_init_seed_are_there(make_driver):
    driver = make_driver("a")
    seed = CloudInitSeed(user_data="#cloud-config\nhostname: a-guest\n", network_config="version: 2\n")
    cards = (NicSpec("nic0", "52:54:00:00:00:01"), NicSpec("nic1", "52:54:00:00:00:02", "none"))
    disks = (DiskSpec("disk0", GIB, "disk"), DiskSpec("scratch", 64 * MIB), DiskSpec("more", 32 * MIB))
    await driver.create(VM, loud(disks=disks, nics=cards, seed=seed))
    machine = await driver.start(VM)
    words = await said(machine, '"t":')
    assert "[vdb] 131072 512-byte logical blocks" in words
    assert "[vdc] 65536 512-byte logical blocks" in words
    assert "[vdd]" in words  # the seed
    macs = {card["main-mac"] for card in await machine.qmp("query-rx-filter")}
    assert macs == {card.mac for card in cards}
    iso = machine.run_dir.parents[1] / "vms" / VM / "seed.iso"
    assert "Volume id: cidata" in await output("isoinfo", "-d", "-i", str(iso))
    assert await output("isoinfo", "-J", "-i", str(iso), "-x", "/user-data") == seed.user_data


async def test_a_uefi_vm_runs_its_firmware_and_keeps_its_variables(make_driver):
    driver = make_driver("a")
    spec = VmSpec(name="efi", vcpus=1, memory_bytes=256 * MIB, firmware="uefi", disks=(DiskSpec("disk0", 16 * MIB),))
    await driver.create(VM, spec)
    machine = await driver.start(VM)
    await said(machine, "BdsDxe")
    variables = machine.run_dir.parents[1] / "vms" / VM / "uefi-vars.fd"
    assert variables.stat().st_size > 100_000
    await machine.quit()


@pytest.mark.root
async def test_a_card_is_in_the_hosts_bridge_while_the_vm_runs(make_driver):
    name = f"nctest{os.getpid() % 100_000}"
    await asyncio.to_thread(subprocess.run, ["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        driver = make_driver("a")
        await driver.create(VM, loud(nics=(NicSpec("nic0", "52:54:00:00:00:03", "tap", name),)))
        machine = await driver.start(VM)
        ports = list(Path(f"/sys/class/net/{name}/brif").iterdir())
        assert len(ports) == 1
        await asyncio.to_thread(subprocess.run, ["ip", "link", "set", name, "up"], check=True)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(RARP)) as heard:
            heard.bind((name, RARP))
            heard.setblocking(False)
            await machine.announce()
            for _ in range(3):  # several rounds: one may be lost
                async with asyncio.timeout(30):
                    frame = await asyncio.get_running_loop().sock_recv(heard, 2048)
                assert frame[:12].hex(":") == "ff:ff:ff:ff:ff:ff:52:54:00:00:00:03"
        await machine.kill()
        assert not ports[0].exists()
    finally:
        await asyncio.to_thread(subprocess.run, ["ip", "link", "delete", name], check=True)


async def test_a_bridge_that_is_not_there_is_named_and_nothing_is_left(make_driver):
    driver = make_driver("a")
    await driver.create(VM, loud(nics=(NicSpec("nic0", "52:54:00:00:00:03", "tap", "br-none"),)))
    with pytest.raises(BridgeError, match="no bridge 'br-none'") as caught:
        await driver.start(VM)
    assert "ip link add br-none type bridge" in caught.value.next_command
    assert await driver.adopt(VM) == []
    assert not list(driver.ram_file(VM, "x").parent.glob(f"{VM}.*"))


async def test_an_ended_qemu_is_no_zombie(make_driver):
    driver = make_driver("a")
    await driver.create(VM, small_spec())
    machine = await driver.start(VM)
    pid = machine.process.pid
    await machine.kill()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (loud(disks=(DiskSpec("same", GIB), DiskSpec("same", GIB))), InvalidInputError, "the same id"),
        (VmSpec(name="bare", vcpus=1, memory_bytes=64 * MIB), InvalidInputError, "a kernel or a disk to boot from"),
    ],
    ids=["ids", "nothing"],
)
async def test_what_this_host_cannot_make_is_refused_before_it_is_made(make_driver, spec, error, text):
    driver = make_driver("a")
    with pytest.raises(error, match=text):
        await driver.create(VM, spec)
    with pytest.raises(VmUnknownError):
        driver.spec(VM)


async def test_without_qemu_it_says_what_to_install(make_driver, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(QemuMissingError) as caught:
        await make_driver("a").create(VmId("vm-2"), loud())
    assert "apt-get install qemu-system-x86" in caught.value.next_command


async def test_a_guest_of_a_size_that_this_qemu_would_corrupt_is_not_let_in(make_driver):
    driver = make_driver("a")
    fitted = (await driver.create(VM, loud())).memory_bytes
    if fitted == 96 * MIB:
        pytest.skip("this host's QEMU takes every size")
    ram = driver.ram_file(VM, "in")
    await driver.reserve_ram(ram, 96 * MIB)
    with pytest.raises(MachineTypeError, match="would corrupt"):
        await driver.prepare_incoming(VM, loud(), ram_path=ram, overlay=False)


async def test_several_disks_cards_and_a_seed_move_together(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    seed = CloudInitSeed(user_data="#cloud-config\nhostname: a-guest\n")
    cards = (NicSpec("nic0", "52:54:00:00:00:01"), NicSpec("nic1", "52:54:00:00:00:02", "none"))
    disks = (DiskSpec("disk0", GIB, "disk"), DiskSpec("empty", 64 * MIB), DiskSpec("full", GIB, "disk"))
    spec = msgspec.structs.replace(small_spec(), disks=disks, nics=cards, seed=seed)
    machine = await pair.boot(spec)
    there = await pair.move(machine, "b", 2)
    async with console(there.machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    for disk in ("empty", "full"):
        await output("qemu-img", "compare", "-U", str(machine.disks[disk]), str(there.machine.disks[disk]))
    macs = {card["main-mac"] for card in await there.machine.qmp("query-rx-filter")}
    assert macs == {card.mac for card in cards}


async def test_a_uefi_vm_moves_with_its_variables_and_its_firmware_starts_again(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    spec = VmSpec(name="efi", vcpus=1, memory_bytes=256 * MIB, firmware="uefi", disks=(DiskSpec("disk0", 16 * MIB),))
    await pair.drivers["a"].create(VM, spec)
    machine = await pair.drivers["a"].start(VM)
    await said(machine, "BdsDxe")
    there = await pair.move(machine, "b", 2)
    kept = short_dir / "a/vms" / VM / "uefi-vars.fd"
    came = short_dir / "b/vms" / VM / "uefi-vars.fd"
    assert came.read_bytes() == kept.read_bytes()
    await there.machine.qmp("system_reset")
    await said(there.machine, "BdsDxe")


async def test_memory_that_is_the_cache_of_a_disk_is_told_by_its_blocks(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    small = small_spec()
    boot = msgspec.structs.replace(small.boot, append=f"{small.boot.append} novacron.read=1")
    machine = await pair.boot(msgspec.structs.replace(small, boot=boot, memory_bytes=256 * MIB))
    there = await pair.move(machine, "b", 2)
    async with console(there.machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert there.summary.split.dedup_bytes > 100 * MIB
    assert there.summary.ram_wire_bytes < 40 * MIB


async def test_a_qemu_that_dies_while_it_is_adopted_has_gone(make_driver):
    first = make_driver("a")
    await first.create(VM, small_spec())
    machine = await first.start(VM)
    await first.detach()
    machine.process.signal(signal.SIGSTOP)  # it greets nobody: whoever adopts it waits
    adopting = asyncio.create_task(make_driver("a").adopt(VM))
    await asyncio.sleep(0)
    machine.process.signal(signal.SIGKILL)
    assert await adopting == []

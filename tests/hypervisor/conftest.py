"""Every driver, behind the same words."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from novacron.core.units import GIB, MIB
from novacron.hypervisor.memory.driver import MemoryDriver, MemoryHost
from novacron.hypervisor.spec import DiskSpec, VmSpec
from support.pair import small_spec

IMAGE_BYTES = 3 * MIB


@dataclass(frozen=True)
class Hypervisor:
    """``make`` gives a driver of a host by its name (called again: another driver of that host)."""

    make: object
    guest: VmSpec  # of a guest that works, and says so on its console
    blank: VmSpec  # of a VM with nothing on its disks


BLANK = VmSpec(
    name="blank",
    vcpus=1,
    memory_bytes=64 * MIB - 8192,  # a size that every QEMU takes as it is
    disks=(DiskSpec("disk0", 16 * MIB), DiskSpec("disk1", 8 * MIB)),
)


@pytest.fixture
def on_qemu(make_driver):
    return Hypervisor(make_driver, small_spec(), BLANK)


@pytest.fixture
async def in_memory(short_dir):
    """Hosts of this process; everything on them is ended."""
    hosts: dict[str, MemoryHost] = {}
    (short_dir / "image.raw").write_bytes(b"an image".ljust(IMAGE_BYTES, b"\0"))
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))

    def make(name: str) -> MemoryDriver:
        host = hosts.setdefault(name, MemoryHost(memory_bytes=GIB, disk_bytes=64 * GIB))
        run_dir = short_dir / name / "r"
        return MemoryDriver(
            lambda image: (short_dir / "image.raw", "qcow2" if image == "other" else "raw"),
            host=host,
            run_dir=run_dir,
            ram_dir=ram / name,
        )

    disks = (DiskSpec("disk0", 4 * MIB),)
    guest = msgspec.structs.replace(small_spec(), memory_bytes=16 * MIB, disks=disks)
    yield Hypervisor(make, guest, BLANK)
    for host in hosts.values():
        for vm in host.vms.values():
            for machine in vm.instances:
                await machine.kill()
    shutil.rmtree(ram)


@pytest.fixture(params=["on_qemu", "in_memory"])
def hypervisor(request) -> Hypervisor:
    return request.getfixturevalue(request.param)

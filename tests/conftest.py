"""What many tests share: the demo guest, built once; drivers whose boot test has been made already."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from novacron.core.ids import ImageId
from novacron.hypervisor.qemu.accelerator import choose_accelerator, find_qemu
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.launch.guest.build import GuestFiles, build
from support.s3_servers import S3Server, rclone, seaweedfs

CACHE = Path(tempfile.gettempdir()) / f"novacron-test-{os.getuid()}"
KERNEL, INITRD, DISK = ImageId("kernel"), ImageId("initrd"), ImageId("disk")


@pytest.fixture(scope="session")
def guest_files() -> GuestFiles:
    """The demo guest's files; one worker builds, the others wait."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    with FileLock(CACHE / "guest.lock"):
        return build(CACHE / "guest")


@pytest.fixture(scope="session")
def accelerator_file() -> Path:
    """The boot test's result for this host."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    path = CACHE / "accelerator.json"

    async def choose() -> None:
        await choose_accelerator(await find_qemu(), path)

    with FileLock(CACHE / "accelerator.lock"):
        asyncio.run(choose())
    return path


@pytest.fixture(scope="session")
def good_s3() -> Iterator[S3Server]:
    """An S3 server that keeps its word."""
    with seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def weak_s3() -> Iterator[S3Server]:
    """An S3 server that ignores conditions and cannot read parts."""
    with rclone() as server:
        yield server


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path: a unix socket's has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="nc-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def make_driver(
    short_dir: Path, guest_files: GuestFiles, accelerator_file: Path
) -> AsyncIterator[Callable[[str], QemuDriver]]:
    """Drivers of hosts, by name; every QEMU that they started is ended."""
    images = {
        KERNEL: (guest_files.kernel, "blob"),
        INITRD: (guest_files.initrd, "blob"),
        DISK: (guest_files.disk, "qcow2"),
    }
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))
    drivers: list[QemuDriver] = []

    def make(name: str) -> QemuDriver:
        data = short_dir / name
        data.mkdir(exist_ok=True)
        shutil.copyfile(accelerator_file, data / "accelerator.json")
        driver = QemuDriver(lambda image: images[image], data_dir=data, run_dir=data / "r", ram_dir=ram / name)
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        await driver.detach()
    for driver in drivers:
        for vm_id in driver.vms():
            for machine in await driver.adopt(vm_id):
                await machine.kill()
        await driver.detach()
    left = await asyncio.to_thread(_processes, short_dir)
    for pid in left:
        os.kill(pid, 9)
    shutil.rmtree(ram, ignore_errors=True)
    assert not left, "a test left a QEMU running"


def _processes(directory: Path) -> list[int]:
    """Processes whose command line names this folder."""
    found = subprocess.run(["pgrep", "-f", str(directory)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]

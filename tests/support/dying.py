"""A node's driver that is killed in the middle of its work: ``dying.py DATA RAM WORK FUNCTION``.

WORK is one of the functions here; SIGKILL comes once FUNCTION (``module:name`` or ``module:Class.name``) has returned.
"""

import asyncio
import importlib
import inspect
import os
import signal
import sys
from pathlib import Path

import msgspec

from novacron.agent.images import Images
from novacron.hypervisor.qemu.driver import QemuDriver
from support.nodes import VM, spec


async def create(driver: QemuDriver) -> None:
    await driver.create(VM, spec())


async def start(driver: QemuDriver) -> None:
    await driver.start(VM)


async def prepare(driver: QemuDriver) -> None:
    pinned = msgspec.structs.replace(spec(), memory_bytes=spec().memory_bytes - 8192)  # a size that every QEMU takes
    ram = driver.ram_file(VM, "migration-1")
    await driver.reserve_ram(ram, pinned.memory_bytes)
    await driver.prepare_incoming(VM, pinned, ram_path=ram, overlay=driver.has_disks(VM, pinned))


def kill_after(where: str) -> None:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for attribute in owners:
        owner = getattr(owner, attribute)
    function = getattr(owner, name)

    async def later(*given, **named) -> None:
        await function(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    def at_once(*given, **named) -> None:
        function(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, later if inspect.iscoroutinefunction(function) else at_once)


async def main(data: Path, ram: Path, work: str, where: str) -> None:
    driver = QemuDriver(Images(data / "images").path, data_dir=data, run_dir=data / "r", ram_dir=ram)
    kill_after(where)
    await {"create": create, "start": start, "prepare": prepare}[work](driver)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))

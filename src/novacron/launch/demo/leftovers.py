"""Guests outlive their node by design; those of a demonstration end with it."""

import asyncio
import shutil
from pathlib import Path

from novacron.core.ids import ImageId
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.launch import places


async def end_guests(node_dir: Path) -> None:
    """End every QEMU of a node that has stopped, and remove its sockets and its guests' RAM."""
    if not (node_dir / "vms").exists():
        return
    run_dir, ram_dir = places.run_dir(node_dir), places.ram_dir(node_dir)
    driver = QemuDriver(_no_images, data_dir=node_dir, run_dir=run_dir, ram_dir=ram_dir)
    for vm_id in driver.vms():
        for machine in await driver.adopt(vm_id):
            await machine.kill()
    await driver.detach()
    for directory in (run_dir, ram_dir):
        await asyncio.to_thread(shutil.rmtree, directory)


def _no_images(image: ImageId) -> tuple[Path, str]:
    raise AssertionError(f"nothing is started here, so nobody asks for image {image}")

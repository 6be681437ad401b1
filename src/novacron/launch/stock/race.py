"""Lets a contender move the demo guest over the lab's link: the same guest, workload and seed as everybody else."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from msgspec import Struct

from novacron.core.ids import ImageId, VmId
from novacron.hypervisor.qemu import images
from novacron.hypervisor.qemu.accelerator import choose_accelerator, find_qemu
from novacron.hypervisor.qemu.command import Launch
from novacron.hypervisor.spec import DiskSpec, KernelBoot, VmSpec, fit_memory
from novacron.launch.guest.build import DISK_BYTES, GuestFiles
from novacron.launch.lab.lab import Lab, crossed
from novacron.launch.stock.contender import Contender
from novacron.launch.stock.instance import StockInstance
from novacron.launch.stock.move import Ports, StockFigures, StockMove

DISK: Final = "disk0"
MEMORY_DIR: Final = "/dev/shm"  # noqa: S108 - a folder of our own is made within


@dataclass(frozen=True, slots=True)
class Entry:
    """The guest that all move, and the rules."""

    guest: GuestFiles
    memory_bytes: int
    append: str
    downtime_ms: int
    give_up_s: float


class StockResult(Struct, frozen=True):
    """What a contender has reached."""

    name: str
    figures: StockFigures
    link_bytes: int  # both directions, as the lab counts
    errors: int  # found by the guest afterwards: pages and records


async def race(lab: Lab, sites: Sequence[str], contender: Contender, entry: Entry) -> StockResult:
    """Boot the guest at the first site, move it to the second, let it verify itself."""
    with (
        tempfile.TemporaryDirectory(prefix="nc-") as temporary,
        tempfile.TemporaryDirectory(prefix="novacron-stock-", dir=MEMORY_DIR) as ram,
    ):
        here = await _launch(Path(temporary), Path(ram) / "source", entry)
        blank = Path(temporary) / "blank.qcow2"
        await images.create_disk(blank, DISK_BYTES)
        there = replace(
            here,
            run_dir=Path(temporary) / "t",
            ram_path=Path(ram) / "target",
            ram_shared=contender.post_copy,  # pages of a private mapping of a file cannot be missing
            disks={DISK: blank},
            incoming=True,
        )
        async with StockInstance.running(lab, sites[0], here) as source:
            async with source.console() as console:
                await console.wait_for("t")
            async with StockInstance.running(lab, sites[1], there) as target:
                before = crossed(lab)
                move = StockMove(source, target, contender, Ports.of(lab, sites[1]), disk=DISK)
                figures = await move.run(downtime_ms=entry.downtime_ms, give_up_s=entry.give_up_s)
                link_bytes = crossed(lab) - before
                async with (target if figures.converged else source).console() as console:
                    found = await console.check(contender.name.replace(" ", "-"))
    return StockResult(contender.name, figures, link_bytes, found["errors"] + found["lost"] + found["doubled"])


async def _launch(directory: Path, ram_path: Path, entry: Entry) -> Launch:
    """The source as NovaCron's driver would start it, its fitted memory included: the contenders move one machine."""
    qemu = await find_qemu()
    accelerator = await choose_accelerator(qemu, directory / "accelerator.json")
    disk = directory / "disk.qcow2"
    await images.copy_disk(entry.guest.disk, "qcow2", disk, DISK_BYTES)
    spec = VmSpec(
        name="stock",
        vcpus=1,
        memory_bytes=fit_memory(entry.memory_bytes, accelerator=accelerator, qemu_version=qemu.version),
        boot=KernelBoot(ImageId("kernel"), ImageId("initrd"), entry.append),
        disks=(DiskSpec(DISK, DISK_BYTES),),
    )
    return Launch(
        VmId("vm-00000000000000000000"),
        spec,
        accelerator,
        directory / "s",
        ram_path,
        ram_shared=False,
        disks={DISK: disk},
        kernel=entry.guest.kernel,
        initrd=entry.guest.initrd,
    )

"""VMs that exist in this process alone, for tests of a size that no machine has the memory for. Never the default.

A ``MemoryHost`` is what a real host is to QEMU: instances live on in it when the driver that started them is gone, and
another driver on the same host finds them.
"""

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from novacron.core.ids import VmId, new_id
from novacron.core.units import GIB, format_size
from novacron.hypervisor.driver import ImagePath, Machine, Stored
from novacron.hypervisor.errors import (
    BadImageError,
    MachineTypeError,
    NoRoomError,
    UnsupportedError,
    VmStateError,
    VmUnknownError,
)
from novacron.hypervisor.memory.disk import BLOCK_BYTES, MemoryDisk
from novacron.hypervisor.memory.machine import MemoryMachine
from novacron.hypervisor.memory.point_in_time import MemoryPointInTime
from novacron.hypervisor.point_in_time import PointInTime
from novacron.hypervisor.resize import check_resize
from novacron.hypervisor.spec import check_spec, sizes
from novacron.protocol.vm import HostCapabilities, VmSpec

ACCELERATOR: Final = "memory"
MACHINE_TYPES: Final = ("pc-q35-7.1", "pc-q35-7.2")


@dataclass(slots=True)
class _Vm:
    spec: VmSpec | None = None
    disks: dict[str, MemoryDisk] = field(default_factory=dict)
    instances: list[MemoryMachine] = field(default_factory=list)
    settled_at: float = 0.0
    held: MemoryPointInTime | None = None


@dataclass(slots=True)
class MemoryHost:
    """A host's room, and what lives on it."""

    memory_bytes: int = 64 * GIB
    disk_bytes: int = 1024 * GIB
    machine_types: tuple[str, ...] = MACHINE_TYPES
    vms: dict[VmId, _Vm] = field(default_factory=dict)


class MemoryDriver:
    """See ``driver.Driver``. Only raw images can be read here."""

    def __init__(self, image_path: ImagePath, *, host: MemoryHost, run_dir: Path, ram_dir: Path) -> None:
        self._host = host
        self._run_dir = run_dir
        self._ram_dir = ram_dir
        self._image_path = image_path
        for directory in (run_dir, ram_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def capabilities(self) -> HostCapabilities:
        """What the host is said to have, less what is taken."""
        return HostCapabilities(
            qemu_version=(7, 2, 0),
            machine_types=self._host.machine_types,
            accelerator=ACCELERATOR,
            cpus=os.cpu_count() or 1,
            memory_bytes=self._host.memory_bytes,
            memory_free_bytes=self._memory_free(),
            disk_free_bytes=self._disk_free(),
        )

    async def create(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Make the disks."""
        vm = self._vm(vm_id)
        if vm.spec is not None:
            return vm.spec
        check_spec(spec)
        self._check_machine(spec)
        vm.disks = self._make_disks(spec)
        vm.spec = spec
        return spec

    async def start(self, vm_id: VmId) -> Machine:
        """A cold boot."""
        spec = self.spec(vm_id)
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {spec.name} has an instance already", next_command=f"novacron vm show {spec.name}")
        self._check_machine(spec)
        for image in () if spec.boot is None else (spec.boot.kernel, spec.boot.initrd):
            if image is not None:
                self._image_path(image)
        ram_path = self.ram_file(vm_id, new_id("ram"))
        await self.reserve_ram(ram_path, spec.memory_bytes)
        return self._launch(vm_id, spec, self._vm(vm_id).disks, ram_path, incoming=False)

    async def prepare_incoming(
        self,
        vm_id: VmId,
        spec: VmSpec,
        *,
        ram_path: Path,
        overlay: bool,
        donor: VmId | None = None,
        shared: bool = False,
    ) -> Machine:
        """An instance that waits for its state."""
        if shared:
            raise UnsupportedError("VMs in memory come as a stream only", next_command="novacron migrate")
        self._check_machine(spec)
        disks = self._vm(vm_id).disks
        lent = disks if overlay else self._vm(donor).disks if donor else {}
        copies = self._empty_disks(spec)
        copies |= {disk.id: lent[disk.id].copy(disk.size_bytes) for disk in spec.disks if disk.id in lent}
        return self._launch(vm_id, spec, copies, ram_path, incoming=True)

    def has_disks(self, vm_id: VmId, spec: VmSpec) -> bool:
        """Whether disks of these names and sizes lie here."""
        here = self._vm(vm_id).spec
        return here is not None and bool(spec.disks) and sizes(here) == sizes(spec)

    async def settle_incoming(self, machine: Machine) -> None:
        """The instance's disks and spec are the VM's."""
        assert isinstance(machine, MemoryMachine)  # noqa: S101 - a driver is given its own machines
        vm = self._vm(machine.vm_id)
        vm.disks, vm.spec = machine.disks, machine.spec
        vm.settled_at = time.time()
        machine.settled = True

    async def end_incoming(self, vm_id: VmId, instance: str, *, keep_disks: bool) -> Path | None:
        """End an instance that never became the VM; its RAM file."""
        vm = self._vm(vm_id)
        machine = next((machine for machine in vm.instances if machine.instance == instance), None)
        if machine is None:
            return None
        await machine.kill()
        if keep_disks:
            vm.disks, vm.spec, vm.settled_at = machine.disks, machine.spec, time.time()
        vm.instances.remove(machine)
        shutil.rmtree(machine.run_dir, ignore_errors=True)
        return machine.ram_path

    async def kill(self, vm_id: VmId, instance: str) -> None:
        """End an instance."""
        for machine in self._vm(vm_id).instances:
            if machine.instance == instance:
                await machine.kill()

    async def adopt(self, vm_id: VmId) -> list[Machine]:
        """Instances that live; what dead ones left is removed."""
        vm = self._vm(vm_id)
        for machine in [machine for machine in vm.instances if machine.settled and not machine.living]:
            machine.ram_path.unlink(missing_ok=True)
            shutil.rmtree(machine.run_dir, ignore_errors=True)
            vm.instances.remove(machine)
        return [machine for machine in vm.instances if machine.living]

    def instances(self, vm_id: VmId) -> list[str]:
        """Living or not."""
        return [machine.instance for machine in self._vm(vm_id).instances]

    async def unused_disks(self, vm_id: VmId) -> list[Path]:  # noqa: ARG002 - disks are no files here
        """None."""
        return []

    def unused_ram(self) -> list[Path]:
        """Files of no machine."""
        used = {machine.ram_path for vm in self._host.vms.values() for machine in vm.instances}
        return sorted(set(self._ram_dir.glob("*.ram")) - used)

    def socket_dir(self, machine: Machine) -> Path:
        """Where sockets of an instance may lie."""
        return self._run_dir / machine.instance

    def vms(self) -> list[VmId]:
        """VMs of which anything is here."""
        return sorted(vm_id for vm_id, vm in self._host.vms.items() if vm.spec is not None or vm.instances)

    def stored(self, vm_id: VmId) -> Stored:
        """Its disks' sizes: this host counts no holes."""
        vm = self._vm(vm_id)
        return Stored(sum(disk.size_bytes for disk in vm.disks.values()), vm.settled_at)

    def ram_file(self, vm_id: VmId, name: str) -> Path:
        """Where a RAM image of this VM lies."""
        return self._ram_dir / f"{vm_id}.{name}.ram"

    async def reserve_ram(self, path: Path, size_bytes: int) -> None:
        """An all-zero file, which takes room only where it is written."""
        free = self._memory_free()
        if size_bytes > free:
            raise NoRoomError(
                f"{format_size(size_bytes)} of memory are needed, {format_size(free)} are free on this host",
                next_command="novacron node list",
            )
        with path.open("wb") as file:
            file.truncate(size_bytes)

    def spec(self, vm_id: VmId) -> VmSpec:
        """As pinned."""
        spec = self._vm(vm_id).spec
        if spec is None:
            raise VmUnknownError(f"this node has no VM {vm_id}", next_command="novacron vm list")
        return spec

    def point_in_time(self, vm_id: VmId, machine: Machine | None) -> PointInTime:
        """Of disks that are the same, whether an instance has them or not."""
        vm = self._vm(vm_id)
        if vm.held is None or not vm.held.holds:
            disks = machine.disks if isinstance(machine, MemoryMachine) else vm.disks
            vm.held = MemoryPointInTime(disks, self._run_dir / f"{vm_id}.nbd")
        return vm.held

    async def resize(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Another size."""
        vm, old = self._vm(vm_id), self.spec(vm_id)
        machines = await self.adopt(vm_id)
        check_resize(old, check_spec(spec), running=bool(machines))
        for disk in spec.disks:
            vm.disks[disk.id].size_bytes = disk.size_bytes
        vm.spec = spec
        for machine in machines:
            machine.spec = spec
        return spec

    async def collapse(self, vm_id: VmId) -> None:
        """There are no overlays here: a copy shares blocks with what it was made from."""

    async def delete(self, vm_id: VmId) -> None:
        """Remove everything of a VM."""
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {vm_id} runs", next_command="novacron vm stop it first")
        for path in self._ram_dir.glob(f"{vm_id}.*"):
            path.unlink()
        self._host.vms.pop(vm_id, None)

    async def detach(self) -> None:
        """The instances go on: they are the host's."""

    def _vm(self, vm_id: VmId) -> _Vm:
        return self._host.vms.setdefault(vm_id, _Vm())

    def _check_machine(self, spec: VmSpec) -> None:
        if spec.machine not in self._host.machine_types:
            raise MachineTypeError(f"this host has no machine {spec.machine}", next_command="novacron node show")

    def _make_disks(self, spec: VmSpec) -> dict[str, MemoryDisk]:
        disks = self._empty_disks(spec)
        for disk in spec.disks:
            if disk.image is not None:
                path, image_format = self._image_path(disk.image)
                if image_format != "raw":
                    raise BadImageError(f"the in-memory driver reads raw images, and {disk.image} is {image_format}")
                _fill(disks[disk.id], path)
        return disks

    def _empty_disks(self, spec: VmSpec) -> dict[str, MemoryDisk]:
        needed, free = sum(disk.size_bytes for disk in spec.disks if disk.image is None), self._disk_free()
        if needed > free:
            raise NoRoomError(
                f"a disk of {format_size(needed)} is asked for, {format_size(free)} are free here",
                next_command="novacron node list",
            )
        return {disk.id: MemoryDisk(disk.size_bytes) for disk in spec.disks}

    def _launch(
        self, vm_id: VmId, spec: VmSpec, disks: dict[str, MemoryDisk], ram_path: Path, *, incoming: bool
    ) -> MemoryMachine:
        instance = new_id("run")
        run_dir = self._run_dir / instance
        run_dir.mkdir(mode=0o700)
        machine = MemoryMachine(
            vm_id, instance, spec, ram_path=ram_path, run_dir=run_dir, disks=disks, incoming=incoming
        )
        self._vm(vm_id).instances.append(machine)
        return machine

    def _memory_free(self) -> int:
        return self._host.memory_bytes - sum(path.stat().st_size for path in self._ram_dir.glob("*.ram"))

    def _disk_free(self) -> int:
        taken = sum(disk.size_bytes for vm in self._host.vms.values() for disk in vm.disks.values())
        return self._host.disk_bytes - taken


def _fill(disk: MemoryDisk, image: Path) -> None:
    """Write an image into an empty disk; raises BadImageError when it is larger."""
    size = image.stat().st_size
    if size > disk.size_bytes:
        raise BadImageError(f"the image has {size} bytes: a disk of {disk.size_bytes} bytes would cut it off")
    with image.open("rb") as file:
        at = 0
        while piece := file.read(BLOCK_BYTES):
            if any(piece):
                disk.write(at, piece)
            at += len(piece)

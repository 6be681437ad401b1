"""The QEMU driver: where a VM's files lie, and how its instances start, come in and are found again.

<data>/vms/<vm>/spec.json            the spec as pinned
<data>/vms/<vm>/disks.json           which file each disk is now
<data>/vms/<vm>/disks/…              qcow2 files; an overlay lies over the file that a move left behind
<data>/vms/<vm>/instances/…          one record for each living instance
<run>/<instance>/…                   its monitors, console, log (short paths: a unix socket's has 107 bytes)
<ram>/<vm>.<name>.ram                its RAM
"""

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Final

import msgspec

from novacron.core.ids import VmId, new_id
from novacron.core.units import GIB, MIB, format_size
from novacron.hypervisor.driver import ImagePath, Machine, Stored
from novacron.hypervisor.errors import (
    MachineTypeError,
    NoRoomError,
    QemuDiedError,
    VmStateError,
    VmUnknownError,
)
from novacron.hypervisor.qemu import images
from novacron.hypervisor.qemu.accelerator import Qemu, choose_accelerator, find_qemu
from novacron.hypervisor.qemu.command import Launch, command
from novacron.hypervisor.qemu.firmware import firmware_code, make_variables
from novacron.hypervisor.qemu.machine import InstanceRecord, QemuMachine
from novacron.hypervisor.qemu.process import Process
from novacron.hypervisor.qemu.qmp import Qmp
from novacron.hypervisor.qemu.seed import write_seed
from novacron.hypervisor.qemu.tap import open_tap
from novacron.hypervisor.resize import check_resize
from novacron.hypervisor.spec import check_spec, fit_memory, sizes
from novacron.protocol.vm import HostCapabilities, VmSpec

START_TIMEOUT_S: Final = 20.0
MIN_DISK_FREE_BYTES: Final = 256 * MIB  # what a disk's room check leaves free
MEMORY_SPARE_BYTES: Final = GIB // 4  # what QEMU and the host keep for themselves


class QemuDriver:
    """VMs on this host's QEMU."""

    def __init__(self, image_path: ImagePath, *, data_dir: Path, run_dir: Path, ram_dir: Path) -> None:
        self._vms = data_dir / "vms"
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._ram_dir = ram_dir
        self._image_path = image_path
        self._qemu: Qemu | None = None
        self._accelerator = ""
        self._machines: dict[str, QemuMachine] = {}  # by instance: a monitor serves one client
        for directory in (self._vms, run_dir, ram_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def qemu(self) -> Qemu:
        """This host's QEMU, looked at once; raises QemuMissingError."""
        if self._qemu is None:
            qemu = await find_qemu()
            self._accelerator = await choose_accelerator(qemu, self._data_dir / "accelerator.json")
            self._qemu = qemu
        return self._qemu

    async def capabilities(self) -> HostCapabilities:
        """What this host can run, and its room."""
        qemu = await self.qemu()
        memory = _memory_info()
        return HostCapabilities(
            qemu_version=qemu.version,
            machine_types=qemu.machine_types,
            accelerator=self._accelerator,
            cpus=os.cpu_count() or 1,
            memory_bytes=memory["MemTotal"],
            memory_free_bytes=await asyncio.to_thread(self._ram_room),
            disk_free_bytes=self._disk_room(),
        )

    async def create(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Make the disks; the spec as pinned."""
        directory = self._directory(vm_id)
        if (directory / "spec.json").exists():
            return self.spec(vm_id)
        check_spec(spec)
        await self._check_machine(spec)
        spec = msgspec.structs.replace(spec, memory_bytes=await self._fitted(spec))
        (directory / "disks").mkdir(parents=True, exist_ok=True, mode=0o700)
        for disk in spec.disks:
            path = directory / "disks" / f"{disk.id}.qcow2"
            path.unlink(missing_ok=True)
            self._check_disk_room(disk.size_bytes if disk.image is None else 0)
            if disk.image is None:
                await images.create_disk(path, disk.size_bytes)
            else:
                source, image_format = self._image_path(disk.image)
                await images.copy_disk(source, image_format, path, disk.size_bytes)
        await self._prepare_extras(directory, spec)
        _write(directory / "disks.json", {disk.id: f"{disk.id}.qcow2" for disk in spec.disks})
        _write(directory / "spec.json", spec)
        return spec

    async def start(self, vm_id: VmId) -> Machine:
        """A cold boot."""
        spec = self.spec(vm_id)
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {spec.name} has an instance already", next_command=f"novacron vm show {spec.name}")
        await self._check_machine(spec)
        ram_path = self.ram_file(vm_id, new_id("ram"))
        await self.reserve_ram(ram_path, spec.memory_bytes)
        return await self._launch(vm_id, spec, self._disks(vm_id), ram_path, incoming=False)

    async def prepare_incoming(self, vm_id: VmId, spec: VmSpec, *, ram_path: Path, overlay: bool) -> Machine:
        """An instance that waits for its state."""
        await self._check_machine(spec)
        if await self._fitted(spec) != spec.memory_bytes:
            raise MachineTypeError(
                f"this host's QEMU would corrupt a guest of {spec.memory_bytes} bytes when it moves on",
                next_command="novacron vm resize it to 8 KiB less before it moves",
            )
        directory = self._directory(vm_id)
        (directory / "disks").mkdir(parents=True, exist_ok=True, mode=0o700)
        name = new_id("in")
        old = self._disks(vm_id) if overlay else {}
        disks: dict[str, Path] = {}
        for disk in spec.disks:
            disks[disk.id] = directory / "disks" / f"{disk.id}.{name}.qcow2"
            if overlay:
                await images.create_overlay(disks[disk.id], old[disk.id])
            else:
                self._check_disk_room(disk.size_bytes)
                await images.create_disk(disks[disk.id], disk.size_bytes)
        await self._prepare_extras(directory, spec)
        return await self._launch(vm_id, spec, disks, ram_path, incoming=True)

    def has_disks(self, vm_id: VmId, spec: VmSpec) -> bool:
        """Whether disks of these names and sizes lie here."""
        try:
            here = self.spec(vm_id)
        except VmUnknownError:
            return False
        return bool(spec.disks) and sizes(here) == sizes(spec) and all(p.exists() for p in self._disks(vm_id).values())

    async def settle_incoming(self, machine: Machine) -> None:
        """The instance's disks and spec are the VM's."""
        assert isinstance(machine, QemuMachine)  # noqa: S101 - a driver is given its own machines
        self._settle(machine.vm_id, machine.spec, machine.disks)
        path = self._record(machine.vm_id, machine.instance)
        record = msgspec.json.decode(path.read_bytes(), type=InstanceRecord)
        _write(path, msgspec.structs.replace(record, incoming=False))

    async def end_incoming(self, vm_id: VmId, instance: str, *, keep_disks: bool) -> Path | None:
        """End an instance that never became the VM; its RAM file."""
        path = self._record(vm_id, instance)
        if not path.exists():
            return None
        record = msgspec.json.decode(path.read_bytes(), type=InstanceRecord)
        process = Process(record.pid, record.started)
        try:
            if process.alive:
                await (await self._connect(vm_id, record)).quit()
        except QemuDiedError:
            await process.kill()  # it was about to end by itself
        disks = {name: Path(file) for name, file in record.disks.items()}
        if keep_disks:
            self._settle(vm_id, record.spec, disks)
        else:
            for file in set(disks.values()) - set(self._disks(vm_id).values()):
                file.unlink(missing_ok=True)
        self._forget(vm_id, instance)
        return Path(record.ram_path)

    async def adopt(self, vm_id: VmId) -> list[Machine]:
        """Instances that live; what dead ones left (sockets, RAM) is removed."""
        found: list[Machine] = []
        for path in sorted((self._directory(vm_id) / "instances").glob("*.json")):
            record = msgspec.json.decode(path.read_bytes(), type=InstanceRecord)
            if Process(record.pid, record.started).alive:
                found.append(await self._connect(vm_id, record))
            elif not record.incoming:
                Path(record.ram_path).unlink(missing_ok=True)
                self._forget(vm_id, record.instance)
        return found

    def socket_dir(self, machine: Machine) -> Path:
        """Where sockets of an instance may lie: the path is short enough for one."""
        return self._run_dir / machine.instance

    def vms(self) -> list[VmId]:
        """VMs of which anything is here."""
        return [VmId(path.name) for path in sorted(self._vms.iterdir())]

    def stored(self, vm_id: VmId) -> Stored:
        """What its files take."""
        found = [path.stat() for path in (self._directory(vm_id) / "disks").glob("*")]
        return Stored(sum(one.st_blocks * 512 for one in found), max((one.st_mtime for one in found), default=0.0))

    def ram_file(self, vm_id: VmId, name: str) -> Path:
        """Where a RAM image of this VM lies."""
        return self._ram_dir / f"{vm_id}.{name}.ram"

    async def reserve_ram(self, path: Path, size_bytes: int) -> None:
        """An all-zero file of this size, room for it checked against what other guests may still fill."""
        room = await asyncio.to_thread(self._ram_room)
        if size_bytes > room:
            raise NoRoomError(
                f"{format_size(size_bytes)} of memory are needed, {format_size(max(0, room))} are free on this host",
                next_command="novacron node list",
            )
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size_bytes)

    def spec(self, vm_id: VmId) -> VmSpec:
        """As pinned."""
        try:
            return msgspec.json.decode((self._directory(vm_id) / "spec.json").read_bytes(), type=VmSpec)
        except FileNotFoundError:
            raise VmUnknownError(f"this node has no VM {vm_id}", next_command="novacron vm list") from None

    async def resize(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Another size."""
        old, machines = self.spec(vm_id), await self.adopt(vm_id)
        check_resize(old, spec, running=bool(machines))
        files = self._disks(vm_id)
        for before, after in zip(old.disks, spec.disks, strict=True):
            if after.size_bytes == before.size_bytes:
                continue
            for machine in machines:
                await machine.grow_disk(before.id, after.size_bytes)
            if not machines:
                await images.grow_disk(files[before.id], after.size_bytes)
        spec = msgspec.structs.replace(check_spec(spec), memory_bytes=await self._fitted(spec))
        _write(self._directory(vm_id) / "spec.json", spec)
        return spec

    async def collapse(self, vm_id: VmId) -> None:
        """Merge overlays into the files under them, and remove files that no disk uses."""
        if await self.adopt(vm_id):
            return
        directory = self._directory(vm_id)
        used: dict[str, str] = {}
        for disk, path in self._disks(vm_id).items():
            current = path
            while backing := (await images.describe(current, image_format="qcow2")).get("full-backing-filename"):
                await images.merge_overlay(current)
                used[disk] = Path(backing).name
                _write(directory / "disks.json", {**self._disk_names(vm_id), disk: used[disk]})
                current.unlink()
                current = directory / "disks" / used[disk]
        names = set(self._disk_names(vm_id).values())
        for file in (directory / "disks").iterdir():
            if file.name not in names:
                file.unlink()

    async def delete(self, vm_id: VmId) -> None:
        """Remove everything of a VM."""
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {vm_id} runs", next_command="novacron vm stop it first")
        for path in self._ram_dir.glob(f"{vm_id}.*"):
            path.unlink()
        await asyncio.to_thread(shutil.rmtree, self._directory(vm_id), ignore_errors=True)

    def _directory(self, vm_id: VmId) -> Path:
        return self._vms / vm_id

    def _record(self, vm_id: VmId, instance: str) -> Path:
        return self._directory(vm_id) / "instances" / f"{instance}.json"

    def _settle(self, vm_id: VmId, spec: VmSpec, disks: dict[str, Path]) -> None:
        _write(self._directory(vm_id) / "disks.json", {name: path.name for name, path in disks.items()})
        _write(self._directory(vm_id) / "spec.json", spec)

    def _disk_names(self, vm_id: VmId) -> dict[str, str]:
        try:
            return msgspec.json.decode((self._directory(vm_id) / "disks.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}

    def _disks(self, vm_id: VmId) -> dict[str, Path]:
        return {disk: self._directory(vm_id) / "disks" / name for disk, name in self._disk_names(vm_id).items()}

    async def _fitted(self, spec: VmSpec) -> int:
        version = (await self.qemu()).version
        return fit_memory(spec.memory_bytes, accelerator=self._accelerator, qemu_version=version)

    async def _check_machine(self, spec: VmSpec) -> None:
        qemu = await self.qemu()
        if spec.machine not in qemu.machine_types:
            known = ", ".join(name for name in qemu.machine_types[-3:])
            raise MachineTypeError(
                f"this host's QEMU {'.'.join(map(str, qemu.version))} has no machine {spec.machine} (newest: {known})",
                next_command="novacron node show",
            )

    async def _prepare_extras(self, directory: Path, spec: VmSpec) -> None:
        if spec.seed is not None:
            await write_seed(directory / "seed.iso", spec.seed, spec.name)
        if spec.firmware == "uefi":
            make_variables(directory / "uefi-vars.fd")

    async def _launch(
        self, vm_id: VmId, spec: VmSpec, disks: dict[str, Path], ram_path: Path, *, incoming: bool
    ) -> QemuMachine:
        qemu = await self.qemu()
        taps: dict[str, int] = {}
        try:
            for nic in spec.nics:
                if nic.mode == "tap":
                    taps[nic.id] = await open_tap(nic.bridge)
            return await self._spawn(vm_id, spec, disks, ram_path, qemu, taps=taps, incoming=incoming)
        except BaseException:
            ram_path.unlink(missing_ok=True)
            raise
        finally:
            for tap in taps.values():
                os.close(tap)

    async def _spawn(
        self,
        vm_id: VmId,
        spec: VmSpec,
        disks: dict[str, Path],
        ram_path: Path,
        qemu: Qemu,
        *,
        taps: dict[str, int],
        incoming: bool,
    ) -> QemuMachine:
        instance = new_id("run")
        run_dir = self._run_dir / instance
        run_dir.mkdir(mode=0o700)
        directory = self._directory(vm_id)
        boot = spec.boot  # also of what comes in: its guest may boot again
        launch = Launch(
            vm_id=vm_id,
            spec=spec,
            accelerator=self._accelerator,
            run_dir=run_dir,
            ram_path=ram_path,
            ram_shared=False,
            disks=disks,
            kernel=None if boot is None else self._image_path(boot.kernel)[0],
            initrd=None if boot is None or boot.initrd is None else self._image_path(boot.initrd)[0],
            seed=directory / "seed.iso" if spec.seed is not None else None,
            firmware_code=firmware_code() if spec.firmware == "uefi" else None,
            firmware_vars=directory / "uefi-vars.fd" if spec.firmware == "uefi" else None,
            taps=taps,
            incoming=incoming,
        )
        process = Process.spawn(
            command(launch), program=qemu.program, log=run_dir / "log", inherit=tuple(taps.values())
        )
        record = InstanceRecord(
            instance,
            process.pid,
            process.started,
            str(run_dir),
            str(ram_path),
            spec,
            {k: str(v) for k, v in disks.items()},
            incoming,
        )
        (directory / "instances").mkdir(exist_ok=True, mode=0o700)
        _write(self._record(vm_id, instance), record)
        try:
            return await self._connect(vm_id, record)
        except BaseException:
            await process.kill()
            self._forget(vm_id, instance)
            raise

    async def detach(self) -> None:
        """Leave every monitor; the instances go on."""
        for machine in self._machines.values():
            await machine.detach()
        self._machines.clear()

    async def _connect(self, vm_id: VmId, record: InstanceRecord) -> QemuMachine:
        """The instance's one machine object; its monitors may still be about to open."""
        known = self._machines.get(record.instance)
        if known is not None and known.attached:
            return known
        process, run_dir = Process(record.pid, record.started), Path(record.run_dir)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                qmp = await Qmp.connect(run_dir / "qmp")
                break
            except QemuDiedError as error:
                if not process.alive:
                    log = run_dir / "log"
                    words = log.read_text(errors="replace").strip()[-1000:] if log.exists() else ""
                    raise QemuDiedError(f"QEMU did not start: {words or 'it said nothing'}") from None
                if time.monotonic() > deadline:
                    raise QemuDiedError(f"QEMU of VM {record.spec.name} cannot be spoken to: {error.cause}") from error
                await asyncio.sleep(0.01)  # a process says nothing when its socket appears
        try:
            control = await Qmp.connect(run_dir / "qmp2", oob=True)
        except BaseException:
            await qmp.close()
            raise
        machine = self._machines[record.instance] = QemuMachine(vm_id, record, qmp, control)
        return machine

    def _forget(self, vm_id: VmId, instance: str) -> None:
        self._machines.pop(instance, None)
        self._record(vm_id, instance).unlink(missing_ok=True)
        shutil.rmtree(self._run_dir / instance, ignore_errors=True)

    def _check_disk_room(self, needed_bytes: int) -> None:
        free = self._disk_room()
        if needed_bytes > free:
            raise NoRoomError(
                f"a disk of {format_size(needed_bytes)} is asked for, {format_size(free)} are free here",
                next_command="novacron node list",
            )

    def _disk_room(self) -> int:
        return max(0, shutil.disk_usage(self._vms).free - MIN_DISK_FREE_BYTES)

    def _ram_room(self) -> int:
        """Bytes that a new guest may fill: what the file system and the host have, less what others may still fill."""
        promised = 0
        for path in self._ram_dir.glob("*.ram"):
            try:
                info = path.stat()
            except FileNotFoundError:
                continue
            promised += max(0, info.st_size - info.st_blocks * 512)
        system = os.statvfs(self._ram_dir)
        available = min(system.f_bavail * system.f_frsize, _memory_info()["MemAvailable"] - MEMORY_SPARE_BYTES)
        return available - promised


def _memory_info() -> dict[str, int]:
    """Of /proc/meminfo, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in lines}


def _write(path: Path, value: object) -> None:
    """Replace a small file as a whole: a reader sees the old or the new one, also after a power cut."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

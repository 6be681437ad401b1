"""The QEMU driver: how instances of VMs start, come in, and are found again.

<data>/vms/<vm>/…                    files of a VM, see ``folder``
<run>/<instance>/…                   its monitors, console, log (short paths: a unix socket's has 107 bytes)
<ram>/<vm>.<name>.ram                its RAM
"""

import asyncio
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec
import structlog

from novacron.core.ids import VmId, new_id
from novacron.hypervisor.driver import ImagePath, Machine, Stored
from novacron.hypervisor.errors import (
    BadImageError,
    MachineTypeError,
    QemuDiedError,
    QemuMissingError,
    VmStateError,
    VmUnknownError,
)
from novacron.hypervisor.point_in_time import PointInTime
from novacron.hypervisor.qemu import images
from novacron.hypervisor.qemu.accelerator import Qemu, choose_accelerator, find_qemu
from novacron.hypervisor.qemu.command import Launch, command
from novacron.hypervisor.qemu.firmware import firmware_code, make_variables
from novacron.hypervisor.qemu.folder import InstanceRecord, VmFolder
from novacron.hypervisor.qemu.machine import QemuMachine
from novacron.hypervisor.qemu.point_in_time import RunningPointInTime
from novacron.hypervisor.qemu.process import Process, is_mapped
from novacron.hypervisor.qemu.qmp import Qmp
from novacron.hypervisor.qemu.resting import RestingPointInTime
from novacron.hypervisor.qemu.room import HostRoom
from novacron.hypervisor.qemu.seed import write_seed
from novacron.hypervisor.qemu.tap import open_tap
from novacron.hypervisor.resize import check_resize
from novacron.hypervisor.spec import check_spec, fit_memory, sizes
from novacron.protocol.vm import DiskSpec, HostCapabilities, VmSpec

START_TIMEOUT_S: Final = 20.0
BORROW_S: Final = 15.0  # for all disks of a VM: its controller waits meanwhile
log = structlog.get_logger()


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
        self._connecting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # likewise
        for directory in (self._vms, run_dir, ram_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._room = HostRoom(self._vms, ram_dir)

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
        return HostCapabilities(
            qemu_version=qemu.version,
            machine_types=qemu.machine_types,
            accelerator=self._accelerator,
            cpus=os.cpu_count() or 1,
            memory_bytes=self._room.memory_bytes(),
            memory_free_bytes=await asyncio.to_thread(self._room.ram_bytes),
            disk_free_bytes=self._room.disk_bytes(),
            direct=True,
        )

    async def create(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Make the disks; the spec as pinned."""
        folder = self._folder(vm_id)
        if (pinned := folder.spec()) is not None:
            return pinned
        check_spec(spec)
        await self._check_machine(spec)
        spec = msgspec.structs.replace(spec, memory_bytes=await self._fitted(spec))
        folder.make()
        disks = {disk.id: folder.disk_file(disk.id) for disk in spec.disks}
        for disk in spec.disks:
            disks[disk.id].unlink(missing_ok=True)
            await self._make_disk(disk, disks[disk.id])
        await self._prepare_extras(folder, spec)
        folder.put_disks(disks)
        folder.put_spec(spec)
        return spec

    async def start(self, vm_id: VmId) -> Machine:
        """A cold boot."""
        spec = self.spec(vm_id)
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {spec.name} has an instance already", next_command=f"novacron vm show {spec.name}")
        await self._check_machine(spec)
        ram_path = self.ram_file(vm_id, new_id("ram"))
        await self.reserve_ram(ram_path, spec.memory_bytes)
        return await self._launch(vm_id, spec, self._folder(vm_id).disks(), ram_path, incoming=False)

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
        await self._check_machine(spec)
        if await self._fitted(spec) != spec.memory_bytes:
            raise MachineTypeError(
                f"this host's QEMU would corrupt a guest of {spec.memory_bytes} bytes when it moves on",
                next_command="novacron vm resize it to 8 KiB less before it moves",
            )
        folder, name = self._folder(vm_id), new_id("in")
        folder.make()
        disks = {disk.id: folder.disk_file(disk.id, name) for disk in spec.disks}
        if overlay:
            below = folder.disks()
            for disk in spec.disks:
                await images.create_overlay(disks[disk.id], below[disk.id], disk.size_bytes)
        else:
            await self._fill(spec, disks, self._folder(donor).disks() if donor else {})
        await self._prepare_extras(folder, spec)
        return await self._launch(vm_id, spec, disks, ram_path, incoming=True, shared=shared)

    def has_disks(self, vm_id: VmId, spec: VmSpec) -> bool:
        """Whether disks of these names and sizes lie here."""
        folder = self._folder(vm_id)
        here = folder.spec()
        if here is None or not spec.disks or sizes(here) != sizes(spec):
            return False
        return all(path.exists() for path in folder.disks().values())

    async def settle_incoming(self, machine: Machine) -> None:
        """The instance's disks and spec are the VM's."""
        assert isinstance(machine, QemuMachine)  # noqa: S101 - a driver is given its own machines
        folder = self._folder(machine.vm_id)
        folder.put_disks(machine.disks)
        folder.put_spec(machine.spec)
        if (record := folder.record(machine.instance)) is not None:
            folder.put_record(msgspec.structs.replace(record, incoming=False))

    async def end_incoming(self, vm_id: VmId, instance: str, *, keep_disks: bool) -> Path | None:
        """End an instance that never became the VM; its RAM file."""
        folder = self._folder(vm_id)
        record = folder.record(instance)
        if record is None:
            return None
        process = record.process()
        try:
            if process.alive:
                await (await self._connect(vm_id, record)).quit()
        except QemuDiedError:
            await process.kill()  # it was about to end by itself
        disks = {name: Path(file) for name, file in record.disks.items()}
        if keep_disks:
            folder.put_disks(disks)
            folder.put_spec(record.spec)
        elif record.incoming:  # else they were the VM's: what came later may lie over them
            for file in set(disks.values()) - set(folder.disks().values()):
                file.unlink(missing_ok=True)
        self._forget(vm_id, instance)
        return Path(record.ram_path)

    async def kill(self, vm_id: VmId, instance: str) -> None:
        """End an instance, whether it can be spoken to or not."""
        record = self._folder(vm_id).record(instance)
        if record is not None:
            await record.process().kill()

    async def adopt(self, vm_id: VmId) -> list[Machine]:
        """Instances that live; what dead ones left (sockets, RAM) is removed."""
        found: list[Machine] = []
        for record in self._folder(vm_id).records():
            if (machine := await self._living(vm_id, record)) is not None:
                found.append(machine)
            elif not record.incoming:
                Path(record.ram_path).unlink(missing_ok=True)
                self._forget(vm_id, record.instance)
        return found

    def instances(self, vm_id: VmId) -> list[str]:
        """Living or not."""
        return [record.instance for record in self._folder(vm_id).records()]

    async def unused_disks(self, vm_id: VmId) -> list[Path]:
        """Files that nothing leads to."""
        folder = self._folder(vm_id)
        used = {*folder.disks().values(), *(Path(f) for record in folder.records() for f in record.disks.values())}
        unknown = [path for path in folder.disk_files() if path not in used]
        if not unknown:
            return []
        try:
            needed = set().union(*[await images.chain(path) for path in used if path.exists()])
        except (BadImageError, QemuMissingError) as error:
            log.warning("disks_not_looked_through", vm=vm_id, cause=error.cause)
            return []
        return [path for path in unknown if path.name not in needed]

    def unused_ram(self) -> list[Path]:
        """Files of no record; another node on this host may have its own in the same folder."""
        used = {record.ram_path for vm_id in self.vms() for record in self._folder(vm_id).records()}
        return [path for path in sorted(self._ram_dir.glob("*.ram")) if str(path) not in used and not is_mapped(path)]

    def socket_dir(self, machine: Machine) -> Path:
        """Where sockets of an instance may lie: the path is short enough for one."""
        return self._run_dir / machine.instance

    def vms(self) -> list[VmId]:
        """VMs of which anything is here."""
        return [VmId(path.name) for path in sorted(self._vms.glob("vm-*"))]

    def stored(self, vm_id: VmId) -> Stored:
        """What its files take."""
        return self._folder(vm_id).stored()

    def ram_file(self, vm_id: VmId, name: str) -> Path:
        """Where a RAM image of this VM lies."""
        return self._ram_dir / f"{vm_id}.{name}.ram"

    async def reserve_ram(self, path: Path, size_bytes: int) -> None:
        """An all-zero file of this size, room for it checked against what other guests may still fill."""
        await asyncio.to_thread(self._room.check_ram, size_bytes)
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size_bytes)

    def spec(self, vm_id: VmId) -> VmSpec:
        """As pinned."""
        spec = self._folder(vm_id).spec()
        if spec is None:
            raise VmUnknownError(f"this node has no VM {vm_id}", next_command="novacron vm list")
        return spec

    def point_in_time(self, vm_id: VmId, machine: Machine | None) -> PointInTime:
        """By filters in QEMU, or by a storage daemon."""
        if machine is not None:
            assert isinstance(machine, QemuMachine)  # noqa: S101 - a driver is given its own machines
            return RunningPointInTime(machine)
        sizes_of = {disk.id: disk.size_bytes for disk in self.spec(vm_id).disks}
        return RestingPointInTime(self._folder(vm_id).disks(), sizes_of, self._run_dir / vm_id)

    async def resize(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Another size."""
        old, machines = self.spec(vm_id), await self.adopt(vm_id)
        check_resize(old, spec, running=bool(machines))
        folder = self._folder(vm_id)
        files = folder.disks()
        for before, after in zip(old.disks, spec.disks, strict=True):
            if after.size_bytes == before.size_bytes:
                continue
            for machine in machines:
                await machine.grow_disk(before.id, after.size_bytes)
            if not machines:
                await images.grow_disk(files[before.id], after.size_bytes)
        spec = msgspec.structs.replace(check_spec(spec), memory_bytes=await self._fitted(spec))
        folder.put_spec(spec)
        for machine in machines:  # whoever migrates it compares both sides by its spec
            machine.spec = spec
            if (record := folder.record(machine.instance)) is not None:
                folder.put_record(msgspec.structs.replace(record, spec=spec))
        return spec

    async def collapse(self, vm_id: VmId) -> None:
        """Merge overlays into the files under them, and remove files that no disk uses."""
        if await self.adopt(vm_id):
            return
        folder = self._folder(vm_id)
        for disk, path in folder.disks().items():
            current = path
            while backing := (await images.describe(current, image_format="qcow2")).get("full-backing-filename"):
                await images.merge_overlay(current)
                folder.put_disks({**folder.disks(), disk: Path(backing)})
                current.unlink()
                current = Path(backing)
        used = {path.name for path in folder.disks().values()}
        for file in folder.disk_files():
            if file.name not in used:
                file.unlink()

    async def delete(self, vm_id: VmId) -> None:
        """Remove everything of a VM."""
        if await self.adopt(vm_id):
            raise VmStateError(f"VM {vm_id} runs", next_command="novacron vm stop it first")
        for path in self._ram_dir.glob(f"{vm_id}.*"):
            path.unlink()
        await asyncio.to_thread(shutil.rmtree, self._folder(vm_id).path, ignore_errors=True)

    def _folder(self, vm_id: VmId) -> VmFolder:
        return VmFolder(self._vms, vm_id)

    async def _make_disk(self, disk: DiskSpec, path: Path) -> None:
        if disk.image is None:
            self._room.check_disk(disk.size_bytes)
            await images.create_disk(path, disk.size_bytes)
        else:
            source, image_format = self._image_path(disk.image)
            await images.copy_disk(source, image_format, path, disk.size_bytes)

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

    async def _fill(self, spec: VmSpec, disks: dict[str, Path], lent: dict[str, Path]) -> None:
        """New disks: copies of what another VM lends, or empty."""
        until = time.monotonic() + BORROW_S
        for disk in spec.disks:
            self._room.check_disk(disk.size_bytes)
            path, lender, within_s = disks[disk.id], lent.get(disk.id), until - time.monotonic()
            if lender is None or not await images.borrow(lender, path, disk.size_bytes, within_s=within_s):
                await images.create_disk(path, disk.size_bytes)

    @staticmethod
    async def _prepare_extras(folder: VmFolder, spec: VmSpec) -> None:
        if spec.seed is not None:
            await write_seed(folder.seed, spec.seed, spec.name)
        if spec.firmware == "uefi":
            make_variables(folder.variables)

    async def _launch(
        self,
        vm_id: VmId,
        spec: VmSpec,
        disks: dict[str, Path],
        ram_path: Path,
        *,
        incoming: bool,
        shared: bool = False,
    ) -> QemuMachine:
        qemu = await self.qemu()
        taps: dict[str, int] = {}
        try:
            for nic in spec.nics:
                if nic.mode == "tap":
                    taps[nic.id] = await open_tap(nic.bridge)
            return await self._spawn(vm_id, spec, disks, ram_path, qemu, taps=taps, incoming=incoming, shared=shared)
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
        shared: bool,
    ) -> QemuMachine:
        instance = new_id("run")
        run_dir = self._run_dir / instance
        folder = self._folder(vm_id)
        boot = spec.boot  # also of what comes in: its guest may boot again
        launch = Launch(
            vm_id=vm_id,
            spec=spec,
            accelerator=self._accelerator,
            run_dir=run_dir,
            ram_path=ram_path,
            ram_shared=shared,
            disks=disks,
            kernel=None if boot is None else self._image_path(boot.kernel)[0],
            initrd=None if boot is None or boot.initrd is None else self._image_path(boot.initrd)[0],
            seed=folder.seed if spec.seed is not None else None,
            firmware_code=firmware_code() if spec.firmware == "uefi" else None,
            firmware_vars=folder.variables if spec.firmware == "uefi" else None,
            taps=taps,
            incoming=incoming,
        )
        record = InstanceRecord(
            instance,
            str(run_dir),
            str(ram_path),
            spec,
            {disk: str(path) for disk, path in disks.items()},
            incoming,
        )
        folder.put_record(record)  # first: what is begun is found again, wherever this process is killed
        try:
            run_dir.mkdir(mode=0o700)
            inherit = tuple(taps.values())
            process = Process.spawn(command(launch), program=qemu.program, log=run_dir / "log", inherit=inherit)
            record = msgspec.structs.replace(record, pid=process.pid, started=process.started)
            folder.put_record(record)
            return await self._connect(vm_id, record)
        except BaseException:
            await record.process().kill()
            self._forget(vm_id, instance)
            raise

    async def detach(self) -> None:
        """Leave every monitor; the instances go on."""
        for machine in self._machines.values():
            await machine.detach()
        self._machines.clear()

    async def _living(self, vm_id: VmId, record: InstanceRecord) -> QemuMachine | None:
        """The instance, unless it is dead, or dies while it is spoken to."""
        process = record.process()
        if not process.alive:
            return None
        try:
            return await self._connect(vm_id, record)
        except QemuDiedError:
            if process.alive:
                raise
            return None

    async def _connect(self, vm_id: VmId, record: InstanceRecord) -> QemuMachine:
        """The instance's one machine object, whoever asks for it at once."""
        async with self._connecting[record.instance]:
            known = self._machines.get(record.instance)
            if known is not None and known.attached:
                return known
            machine = self._machines[record.instance] = await self._attach(vm_id, record)
            return machine

    async def _attach(self, vm_id: VmId, record: InstanceRecord) -> QemuMachine:
        """Its monitors may still be about to open."""
        process, run_dir = record.process(), Path(record.run_dir)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                qmp, control = await _monitors(run_dir)
                break
            except QemuDiedError as error:
                if not process.alive:
                    log = run_dir / "log"
                    words = log.read_text(errors="replace").strip()[-1000:] if log.exists() else ""
                    raise QemuDiedError(f"QEMU did not start: {words or 'it said nothing'}") from None
                if time.monotonic() > deadline:
                    raise QemuDiedError(f"QEMU of VM {record.spec.name} cannot be spoken to: {error.cause}") from error
                await asyncio.sleep(0.01)  # a process says nothing when its socket appears
        return QemuMachine(vm_id, record, qmp, control)

    def _forget(self, vm_id: VmId, instance: str) -> None:
        self._machines.pop(instance, None)
        self._connecting.pop(instance, None)
        self._folder(vm_id).drop_record(instance)
        shutil.rmtree(self._run_dir / instance, ignore_errors=True)


async def _monitors(run_dir: Path) -> tuple[Qmp, Qmp]:
    """Both connections to a QEMU: for commands, and for what must be done while it is busy with one."""
    qmp = await Qmp.connect(run_dir / "qmp")
    try:
        return qmp, await Qmp.connect(run_dir / "qmp2", oob=True)
    except BaseException:
        await qmp.close()
        raise

"""The files of one VM at its host.

<data>/vms/<vm>/spec.json            the spec as pinned
<data>/vms/<vm>/disks.json           which file each disk is now
<data>/vms/<vm>/disks/…              qcow2 files; an overlay lies over the file that a move left behind
<data>/vms/<vm>/instances/…          one record for each instance
<data>/vms/<vm>/seed.iso, uefi-vars.fd
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from novacron.core.ids import VmId
from novacron.hypervisor.driver import Stored
from novacron.hypervisor.qemu.process import Process
from novacron.protocol.vm import VmSpec

BLOCK_BYTES = 512  # that stat counts in


class InstanceRecord(Struct, frozen=True):
    """What is written beside a VM so that another process finds its instance again."""

    instance: str
    run_dir: str
    ram_path: str
    spec: VmSpec
    disks: dict[str, str]
    incoming: bool = False  # it waits for its state, or has not been settled as the VM
    pid: int = 0
    started: int = 0

    def process(self) -> Process:
        """Its own; where it was started, and whoever did was killed before its id was noted, it is looked for."""
        if self.pid:
            return Process(self.pid, self.started)
        return Process.find(f"/{self.instance}/qmp,server") or Process(0, 0)


class VmFolder:
    """Reads and replaces them; nothing is there until it was put."""

    def __init__(self, vms: Path, vm_id: VmId) -> None:
        self.path = vms / vm_id
        self.seed = self.path / "seed.iso"
        self.variables = self.path / "uefi-vars.fd"
        self._disks = self.path / "disks"
        self._instances = self.path / "instances"

    def make(self) -> None:
        """The folders themselves."""
        for directory in (self._disks, self._instances):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def spec(self) -> VmSpec | None:
        """As pinned."""
        try:
            return msgspec.json.decode((self.path / "spec.json").read_bytes(), type=VmSpec)
        except FileNotFoundError:
            return None

    def put_spec(self, spec: VmSpec) -> None:
        """Pin it."""
        _write(self.path / "spec.json", spec)

    def disks(self) -> dict[str, Path]:
        """The file of each disk."""
        try:
            names = msgspec.json.decode((self.path / "disks.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        return {disk: self._disks / name for disk, name in names.items()}

    def put_disks(self, disks: dict[str, Path]) -> None:
        """These files are the disks from now on."""
        _write(self.path / "disks.json", {disk: path.name for disk, path in disks.items()})

    def disk_file(self, disk: str, name: str = "") -> Path:
        """Where a disk's file would lie; ``name`` tells it from others of that disk."""
        return self._disks / (f"{disk}.{name}.qcow2" if name else f"{disk}.qcow2")

    def disk_files(self) -> list[Path]:
        """Every file of a disk, whether one of ``disks`` or not."""
        return sorted(self._disks.glob("*"))

    def stored(self) -> Stored:
        """What the disks' files take."""
        found = [path.stat() for path in self.disk_files()]
        blocks = sum(one.st_blocks for one in found)
        return Stored(blocks * BLOCK_BYTES, max((one.st_mtime for one in found), default=0.0))

    def record(self, instance: str) -> InstanceRecord | None:
        """Of one instance."""
        try:
            return msgspec.json.decode(self._record(instance).read_bytes(), type=InstanceRecord)
        except FileNotFoundError:
            return None

    def records(self) -> Iterator[InstanceRecord]:
        """Of every instance."""
        for path in sorted(self._instances.glob("*.json")):
            yield msgspec.json.decode(path.read_bytes(), type=InstanceRecord)

    def put_record(self, record: InstanceRecord) -> None:
        """Create or replace."""
        self.make()
        _write(self._record(record.instance), record)

    def drop_record(self, instance: str) -> None:
        """Harmless when there is none."""
        self._record(instance).unlink(missing_ok=True)

    def _record(self, instance: str) -> Path:
        return self._instances / f"{instance}.json"


def _write(path: Path, value: object) -> None:
    """Replace a small file as a whole: a reader sees the old or the new one, also after a power cut."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

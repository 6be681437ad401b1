"""What NovaCron asks of a hypervisor: a ``Driver`` makes VMs, a ``Machine`` is one running instance of one.

A VM can have two instances at one host for a while (the paused one that handed over, and a new one coming back), so
instances have names of their own. Instances outlive the process that started them: ``Driver.adopt`` finds them again.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from novacron.core.ids import ImageId, VmId
from novacron.core.units import GIB
from novacron.hypervisor.point_in_time import PointInTime
from novacron.protocol.vm import HostCapabilities, VmSpec

LOW_RAM_BYTES: Final = 2 * GIB  # RAM below lies at its own physical address, whatever the machine type
ImagePath = Callable[[ImageId], tuple[Path, str]]  # where an image of the cluster lies at this host, and its format


class MachineState(StrEnum):
    """QEMU's own run states, and ``gone`` for an instance whose process has ended."""

    RUNNING = "running"
    PAUSED = "paused"
    PRELAUNCH = "prelaunch"
    INMIGRATE = "inmigrate"
    FINISH_MIGRATE = "finish-migrate"
    POSTMIGRATE = "postmigrate"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    IO_ERROR = "io-error"
    INTERNAL_ERROR = "internal-error"
    GUEST_PANICKED = "guest-panicked"
    DEBUG = "debug"
    RESTORE_VM = "restore-vm"
    SAVE_VM = "save-vm"
    WATCHDOG = "watchdog"
    COLO = "colo"
    PRECONFIG = "preconfig"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """Something that QEMU said by itself (``STOP``, ``MIGRATION``, …), with its data."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """QEMU's word on the migration under way; ``status`` is its own (``active``, ``pre-switchover``, …)."""

    status: str
    remaining_bytes: int = 0
    dirty_pages_s: int = 0
    rounds: int = 0
    downtime_ms: int = 0
    throttle_percent: int = 0  # of CPU time taken from the guest
    error: str = ""
    zero_bytes: int = 0  # of memory, dealt with so far
    whole_bytes: int = 0  # of memory, sent as it is
    sent_bytes: int = 0  # all that QEMU has written


@dataclass(frozen=True, slots=True)
class DiskExport:
    """Where one disk can be reached over NBD."""

    socket: Path
    name: str
    bitmap: str = ""  # the metadata context of its bitmap, when one is exported


@dataclass(frozen=True, slots=True)
class DirectLink:
    """A way from one hypervisor straight to another's: TLS under a key that both were given, over some connections."""

    key: bytes
    channels: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a VM takes of the host's disk, and when that last changed (seconds since 1970)."""

    bytes: int
    changed_at: float


class Machine(Protocol):
    """One instance. Every method raises QemuDiedError when the process is gone, QmpError when it refuses."""

    vm_id: VmId
    instance: str
    spec: VmSpec
    ram_path: Path

    async def state(self) -> MachineState:
        """What it does now; ``gone`` instead of an error."""
        ...

    async def resume(self) -> None:
        """Let the guest run; refused (VmStateError) while its state is still coming in."""
        ...

    async def pause(self) -> None:
        """Hold the guest."""
        ...

    async def announce(self) -> None:
        """Tell the networks, a few times, that its network cards are here now; harmless without any."""
        ...

    async def powerdown(self) -> None:
        """Press the power button."""
        ...

    async def quit(self) -> None:
        """End the instance and wait until it has ended; harmless when it is gone."""
        ...

    async def kill(self) -> None:
        """End it the hard way and wait; harmless when it is gone."""
        ...

    async def wait_gone(self) -> None:
        """Return when the instance has ended; a cancellation leaves it alone."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[MachineEvent]]:
        """Subscribe: the iterator gives every event from the entry on, and ends with the instance."""
        ...

    async def last_words(self) -> str:
        """The end of what the instance wrote as errors."""
        ...

    async def vital_signs(self) -> tuple[float, int]:
        """CPU seconds of its virtual CPUs and its count of block operations: a guest that lives moves one of them."""
        ...

    async def guest_ping(self) -> bool:
        """Whether the guest's agent answers (False when there is none)."""
        ...

    async def freeze(self) -> bool:
        """Hold the guest's file systems, all that was written on their disks; False without an agent that does it.

        Whatever this says or raises, ``thaw`` must follow.
        """
        ...

    async def thaw(self) -> None:
        """Let them be written again; harmless when they are, or there is no agent."""
        ...

    async def peek(self, offsets: Sequence[int], length: int) -> list[bytes]:
        """``length`` bytes of the guest's RAM from each of ``offsets`` on, which lie below ``LOW_RAM_BYTES``."""
        ...

    # moving out

    async def prepare_outgoing(self, *, throttle: bool = False, post_copy: bool = False) -> None:
        """Set what a safe hand-over needs (return path, late activation, a stop before the switchover).

        With ``throttle`` a guest that outruns the link is given less and less CPU time until it does not. With
        ``post_copy`` a part of its memory may follow it; raises UnsupportedError.
        """
        ...

    async def prepare_capture(self) -> None:
        """Set what a stream needs that nobody answers: a stop before the switchover, no return path."""
        ...

    async def migrate(self, socket: Path, *, downtime_ms: int) -> None:
        """Start to send to a listening unix socket."""
        ...

    async def set_downtime(self, downtime_ms: int) -> None:
        """Change what the last round may take."""
        ...

    async def migration_status(self) -> MigrationStatus:
        """How it stands."""
        ...

    async def continue_migration(self) -> None:
        """Go on from ``pre-switchover``."""
        ...

    async def start_post_copy(self) -> None:
        """Stop the guest next, for the rest of its memory to follow it; harmless when it stands still already."""
        ...

    async def resume_migration(self, socket: Path) -> None:
        """Send the memory that is still missing over there to a listening unix socket, after a broken post-copy."""
        ...

    async def cancel_migration(self) -> None:
        """Give the migration up; the guest goes on as before. Harmless when none is under way.

        Of a post-copy only while the guest does not run over there, nor ever will.
        """
        ...

    async def cut_migration(self) -> bool:
        """Break its connections, also when QEMU hangs in one of them; False when there is none (any more)."""
        ...

    async def migrate_direct(
        self, link: DirectLink, address: str, *, downtime_ms: int, bandwidth_bytes_s: int | None
    ) -> None:
        """Start to send to another hypervisor at HOST:PORT; raises UnsupportedError."""
        ...

    async def end_direct(self) -> None:
        """Forget the key of a link; harmless when there is none."""
        ...

    # moving in

    async def listen_incoming(self, socket: Path, *, post_copy: bool = False) -> None:
        """Listen for the stream on a unix socket; with ``post_copy`` the guest may run before all of it has come."""
        ...

    async def recover_incoming(self, socket: Path) -> None:
        """Listen there for the memory that is still missing, after a broken post-copy."""
        ...

    async def listen_direct(self, link: DirectLink, host: str, ports: tuple[int, int]) -> int:
        """Listen for another hypervisor at the first free of these ports, and tell which; raises UnsupportedError."""
        ...

    async def export_writable(self, disks: Sequence[str]) -> list[DiskExport]:
        """Let disks be written while the guest's state is still coming in."""
        ...

    async def export_readable(self, disks: Sequence[str], bitmap: str = "") -> list[DiskExport]:
        """Let disks be read, with ``bitmap`` (disabled before) as the context of what is dirty."""
        ...

    async def end_exports(self) -> None:
        """Close every export, in the order that QEMU survives."""
        ...

    # change block tracking

    async def start_tracking(self, disks: Sequence[str], bitmap: str, *, persistent: bool = False) -> None:
        """From now on, every write marks its 64 KiB in ``bitmap``."""
        ...

    async def rotate_tracking(self, disks: Sequence[str], old: str, new: str) -> None:
        """At one instant for all disks: ``new`` begins, ``old`` holds still."""
        ...

    async def fork_tracking(self, disks: Sequence[str], source: str, copy: str, new: str) -> None:
        """At one instant: ``copy`` holds what ``source`` has marked, ``new`` begins; ``source`` goes on."""
        ...

    async def drop_tracking(self, disks: Sequence[str], bitmap: str) -> None:
        """Forget a bitmap; harmless when there is none."""
        ...

    async def tracked(self, disks: Sequence[str], bitmap: str) -> bool:
        """Whether every one of ``disks`` has a consistent bitmap of this name."""
        ...

    async def marked_bytes(self, disks: Sequence[str], bitmap: str) -> int:
        """How much of ``disks`` a bitmap marks; what has none counts as nothing."""
        ...

    async def bitmaps_like(self, prefix: str) -> list[str]:
        """Names of bitmaps that begin with ``prefix``, on any disk."""
        ...

    async def grow_disk(self, disk: str, size_bytes: int) -> None:
        """Make a disk of the running guest larger."""
        ...

    async def console(self) -> Path:
        """The unix socket of the serial console."""
        ...


class Driver(Protocol):
    """Makes VMs at one host."""

    async def capabilities(self) -> HostCapabilities:
        """What this host can run and the room that it has."""
        ...

    async def create(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Make the disks; the spec as pinned (memory may be fitted). Doing it twice is harmless.

        Raises NoRoomError, MachineTypeError, BadImageError.
        """
        ...

    async def start(self, vm_id: VmId) -> Machine:
        """A cold boot; raises VmStateError when an instance runs."""
        ...

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
        """An instance that waits for its state; its RAM is the file ``ram_path``, which the guest's writes never reach.

        With ``shared`` they do: its RAM is filled by the hypervisor, not through the file; raises UnsupportedError.
        With ``overlay`` the disks lie over those that are here already. Otherwise they begin as copies of those that
        ``donor`` has under the same names, as far as they can be read in a short time, or empty: what they hold then is
        to be looked at.
        """
        ...

    def has_disks(self, vm_id: VmId, spec: VmSpec) -> bool:
        """Whether disks of this VM lie here, the same in number and size as in ``spec``, of whatever content."""
        ...

    async def settle_incoming(self, machine: Machine) -> None:
        """The instance has become the VM: its disks and spec are the VM's from now on. May be repeated."""
        ...

    async def end_incoming(self, vm_id: VmId, instance: str, *, keep_disks: bool) -> Path | None:
        """The instance never became the VM: it ends, in order, if it lives. The RAM file, for the caller to remove.

        With ``keep_disks`` they are what lies here of the VM from now on, else they go. None when there is no such
        instance (any more).
        """
        ...

    async def kill(self, vm_id: VmId, instance: str) -> None:
        """End an instance also when nobody can speak with it; harmless when it has ended."""
        ...

    async def adopt(self, vm_id: VmId) -> list[Machine]:
        """Instances of this VM that live. Of one that came in and died unsettled, everything is left alone."""
        ...

    def vms(self) -> list[VmId]:
        """VMs of which anything is here: disks, or an instance."""
        ...

    def stored(self, vm_id: VmId) -> Stored:
        """What its disks take: the room that ``delete`` gives back."""
        ...

    def instances(self, vm_id: VmId) -> list[str]:
        """Names of all instances of which anything is here, living or not."""
        ...

    async def unused_disks(self, vm_id: VmId) -> list[Path]:
        """Files of disks that the VM, its instances and what they lie over have nothing to do with."""
        ...

    def unused_ram(self) -> list[Path]:
        """RAM files that are of no instance, and that no process uses."""
        ...

    def socket_dir(self, machine: Machine) -> Path:
        """A folder for sockets about an instance, its path short enough for them."""
        ...

    def ram_file(self, vm_id: VmId, name: str) -> Path:
        """A path for a RAM image of this VM, on the host's memory file system."""
        ...

    async def reserve_ram(self, path: Path, size_bytes: int) -> None:
        """Make an all-zero RAM file of this size; raises NoRoomError before a guest could meet a full file system."""
        ...

    def spec(self, vm_id: VmId) -> VmSpec:
        """As pinned; raises VmUnknownError."""
        ...

    def point_in_time(self, vm_id: VmId, machine: Machine | None) -> PointInTime:
        """The disks of this instance; without one, of a VM that is off, and stays so meanwhile."""
        ...

    async def resize(self, vm_id: VmId, spec: VmSpec) -> VmSpec:
        """Another size; CPUs and RAM at the next boot, disks at once (they only grow)."""
        ...

    async def collapse(self, vm_id: VmId) -> None:
        """Merge overlays into what they lie over, when no instance runs."""
        ...

    async def delete(self, vm_id: VmId) -> None:
        """Remove disks and RAM; harmless when there is nothing. Raises VmStateError when an instance runs."""
        ...

    async def detach(self) -> None:
        """Leave every instance; they go on, and another driver finds them."""
        ...

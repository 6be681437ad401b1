"""Checkpoints of VMs: what a controller asks of a node, and what it is told."""

from msgspec import Struct, field

from novacron.core.ids import CheckpointId, RestoreId, VmId
from novacron.protocol.vm import VmSpec

WORKING, DONE, FAILED = "working", "done", "failed"  # states of a checkpoint or a restore at its node


class CheckpointOrder(Struct, frozen=True):
    """Make a checkpoint; asking twice is harmless."""

    checkpoint_id: CheckpointId
    vm_id: VmId
    keep: int = 0  # of this VM, the newest so many; 0: all
    keep_s: float = 0.0  # it may go after so long; 0: it stays


class CheckpointRef(Struct, frozen=True):
    """One checkpoint, named."""

    checkpoint_id: CheckpointId


class CheckpointFacts(Struct, frozen=True):
    """What is known of a checkpoint that is whole."""

    vm_id: VmId
    spec: VmSpec
    owner_epoch: int
    running: bool  # whether the guest ran
    created_at: float  # when it stood still, seconds since 1970
    downtime_ms: float  # how long it did
    read_bytes: int  # memory and what is in use of the disks
    new_bytes: int  # of those, what the repository did not have
    stored_bytes: int  # what that took there
    expires_at: float = 0.0  # from then on it may go; 0: never


class WorkProgress(Struct, frozen=True):
    """How far a checkpoint or a restore is."""

    phase: str = ""  # waiting, disks, memory, instant, storing; loading
    done_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_s: float = 0.0
    eta_s: float = 0.0  # 0: not known


class CheckpointReport(Struct, frozen=True):
    """A node's word on one checkpoint."""

    checkpoint_id: CheckpointId
    state: str
    progress: WorkProgress = field(default_factory=WorkProgress)
    facts: CheckpointFacts | None = None  # once it is done
    removed: tuple[CheckpointId, ...] = ()  # others that went to make room for it, or by its ``keep``
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""


class RestoreOrder(Struct, frozen=True):
    """Bring a VM back as a checkpoint has it; asking twice is harmless. ``force`` ends the VM when it runs.

    ``copies``: the checkpoint is of another VM, of which this one is a copy with an identity of its own.
    """

    restore_id: RestoreId
    checkpoint_id: CheckpointId
    vm_id: VmId
    force: bool = False
    copies: bool = False
    paused: bool = False  # it stays so, also where the guest ran


class RestoreRef(Struct, frozen=True):
    """One restore, named."""

    restore_id: RestoreId


class RestoreReport(Struct, frozen=True):
    """A node's word on one restore."""

    restore_id: RestoreId
    state: str
    progress: WorkProgress = field(default_factory=WorkProgress)
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""

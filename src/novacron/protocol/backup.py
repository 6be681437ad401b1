"""Backups of VMs: what a controller asks of a node, and what it is told."""

from msgspec import Struct, field

from novacron.core.ids import BackupId, RestoreId, VmId
from novacron.protocol.checkpoint import WorkProgress
from novacron.protocol.vm import VmSpec
from novacron.repository.s3_access import S3Access

AGENT, CRASH, OFF = "agent", "crash", "off"  # what a backup's disks are consistent by


class RepositoryPlace(Struct, frozen=True, kw_only=True):
    """Where a repository is, and what opens it; ``repr`` tells no secret.

    ``how`` is that of ``repository.keys.Secret``: passphrase, recovery, file, open. Without ``access`` the node's own
    environment has the keys of S3.
    """

    address: str
    how: str = "open"
    secret: bytes = b""
    access: S3Access | None = None

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Without the secret, as ``repr``."""
        return [("address", self.address), ("how", self.how), ("access", self.access)]

    def __repr__(self) -> str:
        return f"RepositoryPlace({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class BackupOrder(Struct, frozen=True):
    """Bring a VM's disks into a repository, which is there already; asking twice is harmless.

    The backup's id is the name of its manifest.
    """

    backup_id: BackupId
    vm_id: VmId
    repository: RepositoryPlace
    rate_bytes_s: int = 0  # that are put into the store, on average; 0: as fast as it goes
    freeze: bool = True  # the guest's file systems for a moment, where its agent answers
    full: bool = False  # read everything, whatever is known


class BackupRef(Struct, frozen=True):
    """One backup, named."""

    backup_id: BackupId


class BackupRemoval(Struct, frozen=True):
    """Remove a backup from its repository; harmless when it is not there."""

    backup_id: BackupId
    repository: RepositoryPlace


class BackupFacts(Struct, frozen=True):
    """What is known of a backup that is whole; its manifest has it as its facts."""

    vm_id: VmId
    spec: VmSpec
    owner_epoch: int
    created_at: float  # the instant that it shows, seconds since 1970
    consistency: str  # agent, crash, off
    base: str  # the backup on which it leaned: only what changed since was read; empty: all was
    full_because: str  # why all was read; empty when it was not
    bitmap: str  # that marks what changes from now on, in the VM's disks
    read_bytes: int
    new_bytes: int  # of those, what the repository did not have
    stored_bytes: int  # what that took there
    frozen_ms: float = 0.0  # how long the guest's file systems were
    note: str = ""  # why it is not consistent by the agent, where the guest has one


class BackupReport(Struct, frozen=True):
    """A node's word on one backup: ``working``, ``done``, ``failed``."""

    backup_id: BackupId
    state: str
    progress: WorkProgress = field(default_factory=WorkProgress)  # phases: waiting, instant, disks, storing
    facts: BackupFacts | None = None  # once it is done
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""


class BackupRestoreOrder(Struct, frozen=True):
    """Give a VM of this node, which is stopped, the disks of a backup; asking twice is harmless.

    The answer is a ``checkpoint.RestoreReport``. What its disks held is lost, so ``overwrite`` must say that this is
    meant; with ``copies`` the VM is a new one, made for this, and the backup is of another.
    """

    restore_id: RestoreId
    backup_id: BackupId
    vm_id: VmId
    repository: RepositoryPlace
    overwrite: bool = False
    copies: bool = False

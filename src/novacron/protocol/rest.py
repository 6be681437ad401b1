"""What the REST API takes and gives, besides the resources themselves.

A resource in an answer carries ``resource_version`` beside its own fields. Sizes are bytes, times seconds since 1970.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Repository
from novacron.protocol.vm import Bytes, CloudInitSeed, Name, ShortText, Vcpus
from novacron.repository.s3_access import S3Access

Reference = Annotated[str, Meta(min_length=1, max_length=200)]  # a name or an id
MaybeReference = Annotated[str, Meta(max_length=200)]
Concurrency = Annotated[int, Meta(ge=1, le=64)]


class DiskRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One disk: made from an image, or empty; an image's disk may be larger than the image."""

    size_bytes: Bytes = 0  # 0: as large as the image
    image: Annotated[str, Meta(max_length=200)] = ""


class NicRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One network card; without ``mac`` one is made."""

    mode: Annotated[str, Meta(pattern="^(user|tap|none)$")] = "user"
    bridge: Annotated[str, Meta(max_length=15)] = ""
    mac: Annotated[str, Meta(pattern=r"^(([0-9a-f]{2}:){5}[0-9a-f]{2})?$")] = ""


class VmRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM to be made. It boots from ``kernel``, or by its firmware from its first disk."""

    name: Name
    memory_bytes: Bytes
    vcpus: Vcpus = 1
    machine: Name = "pc-q35-7.2"
    cpu: Name = "qemu64"
    firmware: Annotated[str, Meta(pattern="^(bios|uefi)$")] = "bios"
    kernel: Annotated[str, Meta(max_length=200)] = ""
    initrd: Annotated[str, Meta(max_length=200)] = ""
    append: ShortText = ""
    disks: Annotated[tuple[DiskRequest, ...], Meta(max_length=16)] = ()
    nics: Annotated[tuple[NicRequest, ...], Meta(max_length=8)] = ()
    cloud_init: CloudInitSeed | None = None
    node: Annotated[str, Meta(max_length=200)] = ""  # empty: the scheduler chooses
    start: bool = True


class StopRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Press the power button, or pull the plug."""

    force: bool = False
    timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 60_000


class ResizeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is. ``disks`` gives sizes by disk id; disks only grow."""

    vcpus: Vcpus | None = None
    memory_bytes: Bytes | None = None
    disks: dict[str, Bytes] = field(default_factory=dict)


class CheckpointRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``keep``: of this VM the newest so many; ``keep_for_ms``: it may go after so long. 0: it stays."""

    keep: Annotated[int, Meta(ge=0, le=10_000)] = 0
    keep_for_ms: Annotated[int, Meta(ge=0)] = 0


class BackupRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Into ``repository``. ``full``: all is read. ``freeze``: the guest's agent is asked to hold its file systems."""

    repository: Reference
    full: bool = False
    freeze: bool = True
    rate_bytes_s: Annotated[int, Meta(ge=0)] = 0  # that are stored, on average; 0: as fast as it goes


class RestoreRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``force``: the VM is ended if it runs. ``name``: as a new VM of that name; the VM itself is left alone."""

    force: bool = False
    name: Annotated[str, Meta(max_length=63)] = ""


class RepositoryRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A repository to be made at ``address`` by ``node`` (empty: any), or, with ``existing``, one that is there.

    ``lock`` says what opens it: ``made`` (the controller makes a key), ``passphrase`` (``secret``: its UTF-8), ``file``
    (at least 32 bytes), ``open`` (it is not encrypted), or, of one that is there, ``recovery`` (its recovery key).
    ``access`` says how S3 is reached, if not by the environment of the nodes.
    """

    name: Name
    address: Annotated[str, Meta(min_length=1, max_length=1024)]
    node: MaybeReference = ""
    chunker: Annotated[str, Meta(pattern="^(fixed-256k|content-64k)$")] = "fixed-256k"
    lock: Annotated[str, Meta(pattern="^(made|passphrase|file|recovery|open)$")] = "made"
    secret: Annotated[str, Meta(max_length=90_000)] = ""  # in base64
    access: S3Access | None = None
    existing: bool = False

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Without the secret, as ``repr``."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "secret"]

    def __repr__(self) -> str:
        return f"RepositoryRequest({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class MadeRepository(Repository, frozen=True):
    """The one that is being made; its recovery key is told in this answer only, and is empty where it has none."""

    recovery_key: str = ""


class CheckRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``read``: the content of every chunk, too."""

    read: bool = False


class PruneRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is without use now goes no earlier than in ``grace_ms``: longer than the longest backup."""

    grace_ms: Annotated[int, Meta(ge=0)] = 86_400_000


class TakeOverRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's word that nobody else runs this VM."""

    attestation: Annotated[str, Meta(min_length=10, max_length=4096)]


class MigrateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Move ``vm`` to ``to``: a cluster, ``cluster/node``, or ``/node`` of the own cluster.

    ``plan_id``: as that plan says, whose policy counts then, or not at all.
    """

    vm: Reference
    to: Reference
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)
    plan_id: MaybeReference = ""


class PlanRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How would ``vm`` move to ``to``?"""

    vm: Reference
    to: Reference
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)


class BatchRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Move ``vms``, or all that ``node`` has, to ``to``: a cluster (the own one: other nodes of it), or a node.

    At one link a batch whose policy has a higher priority goes before others.
    """

    to: Reference
    vms: Annotated[tuple[Reference, ...], Meta(max_length=1000)] = ()
    node: MaybeReference = ""
    concurrency: Concurrency = 2
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)


class DrainRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Move what runs on a node to ``to``; empty: to other nodes of its cluster."""

    to: MaybeReference = ""
    concurrency: Concurrency = 2
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)


class InviteRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How long an invitation is good for."""

    ttl_s: Annotated[int, Meta(ge=10, le=7 * 86_400)] = 3600


class Invitation(Struct, frozen=True):
    """Hand this text to the other side, once."""

    invitation: str
    expires_at: float


class JoinRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The text of an invitation."""

    invitation: Annotated[str, Meta(min_length=1, max_length=8192)]

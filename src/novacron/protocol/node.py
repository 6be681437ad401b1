"""Controller to node, and node to controller."""

from typing import Annotated

from msgspec import Meta, Struct

from novacron.core.ids import ClusterId, ImageId, NodeId, VmId
from novacron.protocol.migration import MigrationReport
from novacron.protocol.vm import HostCapabilities, ShortText, VmSpec


class Nothing(Struct, frozen=True):
    """No content."""


class VmRef(Struct, frozen=True):
    """One VM, named."""

    vm_id: VmId


class VmCreate(Struct, frozen=True):
    """Make the disks of a VM and own it from ``epoch`` on; doing it twice is harmless."""

    vm_id: VmId
    spec: VmSpec
    epoch: int


class VmResize(Struct, frozen=True):
    """Another number of CPUs, amount of RAM or size of disks (disks only grow)."""

    vm_id: VmId
    spec: VmSpec


class VmStop(Struct, frozen=True):
    """Press the power button; ``force`` pulls the plug."""

    vm_id: VmId
    force: bool = False
    timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 60_000


class VmReport(Struct, frozen=True):
    """A node's word on one VM."""

    vm_id: VmId
    epoch: int
    ownership: str  # what its journal says: none, owner, handed_over, fenced
    state: str  # stopped, running, paused, migrating, failed
    spec: VmSpec
    error: str = ""
    sequence: int = 0  # a later look has a higher one, until the node starts again


class Orphan(Struct, frozen=True):
    """Something that a process of this node had begun when it was killed, found at the next start."""

    name: str
    what: str
    removed: bool  # else it was kept


class NodeDescription(Struct, frozen=True):
    """A node's word on itself."""

    node_id: NodeId
    capabilities: HostCapabilities
    vms: tuple[VmReport, ...] = ()
    migrations: tuple[MigrationReport, ...] = ()
    orphans: tuple[Orphan, ...] = ()  # found at its start
    probes: tuple[str, ...] = ()  # that its operator has given it


class NodeEvent(Struct, frozen=True):
    """One change at a node: exactly one of the two is set; both None is the first item, sent when the watch stands."""

    vm: VmReport | None = None
    migration: MigrationReport | None = None


class ImageRef(Struct, frozen=True):
    """One image, with the size and digest that a whole copy has."""

    image_id: ImageId
    format: str
    size_bytes: int
    sha256: str
    name: str = ""  # what people call it, where it is known


class ImagePresence(Struct, frozen=True):
    """Whether a whole, verified copy lies here, and how many bytes of a broken one."""

    complete: bool
    received_bytes: int


class ImageWrite(Struct, frozen=True):
    """The next part of an image (at most 1 MiB); the last part is verified against the digest."""

    image: ImageRef
    offset: int
    data: Annotated[bytes, Meta(max_length=1 << 20)]


class TakeOver(Struct, frozen=True):
    """An operator attests that whoever may hold this VM elsewhere is fenced; the text goes to the audit log."""

    vm_id: VmId
    attestation: ShortText


class NodeJoin(Struct, frozen=True):
    """A new node to its controller (anonymous, by token): sign this."""

    token: ShortText
    name: str
    address: str
    csr_pem: Annotated[str, Meta(max_length=16384)]


class NodeJoined(Struct, frozen=True):
    """The certificate, and whom to trust."""

    node_id: NodeId
    cluster_id: ClusterId
    cluster_name: str
    certificate_pem: str
    trust: dict[str, str]  # trust domain -> root certificate (PEM), own cluster and peers


class NodeRenew(Struct, frozen=True):
    """A known node wants its next certificate."""

    csr_pem: Annotated[str, Meta(max_length=16384)]


class NodeAnnounce(Struct, frozen=True):
    """A known node has started: this is where it serves now."""

    address: str


class TrustUpdate(Struct, frozen=True):
    """Controller to node: the whole trust bundle as it is now."""

    trust: dict[str, str]

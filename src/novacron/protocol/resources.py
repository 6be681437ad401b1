"""The resources of a cluster, as the API shows them and the database keeps them.

Fields carry their unit in their names; times are seconds since 1970, UTC.
"""

from msgspec import Struct, field

from novacron.core.ids import (
    BackupId,
    BatchId,
    CheckpointId,
    ClusterId,
    ImageId,
    MigrationId,
    NodeId,
    PlanId,
    RepositoryId,
    TokenId,
    VmId,
)
from novacron.protocol.backup import BackupFacts
from novacron.protocol.checkpoint import CheckpointFacts, WorkProgress
from novacron.protocol.migration import MigrationPolicy, MigrationProgress, MigrationSummary, Strategy
from novacron.protocol.node import Orphan
from novacron.protocol.plan import LinkSample, Prediction, Survey
from novacron.protocol.repository import CheckResult, Made, PruneResult
from novacron.protocol.vm import HostCapabilities, VmSpec


class Problem(Struct, frozen=True):
    """An error at rest: what an RFC 9457 problem document says of it."""

    code: str
    cause: str
    next_command: str = ""


class Cluster(Struct, frozen=True):
    """The cluster that answers."""

    id: ClusterId
    name: str
    version: str
    address: str  # host:port where peers and nodes reach its controller


class Node(Struct, frozen=True):
    """A hypervisor host."""

    id: NodeId
    name: str
    address: str  # host:port of its agent, data plane included
    spiffe_id: str
    capabilities: HostCapabilities = field(default_factory=HostCapabilities)
    state: str = "joining"  # joining, ready, unreachable
    drain: str = ""  # draining, drained: it takes no VM; empty: it does
    seen_at: float = 0.0
    orphans: tuple[Orphan, ...] = ()  # found at its last start
    probes: tuple[str, ...] = ()  # by which guests that arrive can be looked at there, when it was last asked


class Image(Struct, frozen=True):
    """A file that VMs are made from: a disk image, a kernel or an initrd."""

    id: ImageId
    name: str
    format: str  # raw, qcow2 or blob (kernel, initrd)
    size_bytes: int
    sha256: str
    virtual_size_bytes: int = 0  # of the disk that it holds


class Vm(Struct, frozen=True):
    """A VM that this cluster owns (or is giving away: ``migration_id``)."""

    id: VmId
    name: str
    spec: VmSpec
    state: str  # creating, stopped, running, paused, migrating, failed
    owner_epoch: int
    node_id: NodeId | None = None
    migration_id: MigrationId | None = None
    created_at: float = 0.0
    problem: Problem | None = None


class Migration(Struct, frozen=True):
    """One attempt to move one VM, from its request to the release of what it left behind."""

    id: MigrationId
    vm_id: VmId
    vm_name: str
    source_cluster: str
    target_cluster: str
    direction: str  # outgoing or incoming, seen from this cluster
    phase: str  # see protocol.migration.PHASES
    attempt: int = 1
    retry_of: MigrationId | None = None  # the attempt before
    retried_by: MigrationId | None = None  # the one after
    rolls_back: MigrationId | None = None  # the migration that this one is the way back of
    rolled_back_by: MigrationId | None = None  # the way back
    lost_since: float = 0.0  # of a guest that died and went on at its source: what it did from then on is lost
    begins_at: float = 0.0  # of a phase "waiting"
    waits_for: str = ""  # why it does not begin before: its time window
    differs: str = ""  # why this attempt does not go about it as was asked for
    priority: int = 0  # among those that share its link
    epoch: int = 0
    source_node: str = ""
    target_node: str = ""
    outcome: str = ""  # empty while under way; succeeded, unverified, failed, cancelled, rolled_back, taken_over
    progress: MigrationProgress = field(default_factory=MigrationProgress)
    summary: MigrationSummary | None = None
    problem: Problem | None = None
    notes: tuple[str, ...] = ()  # what failed beside it: programs of the nodes' operators
    failure: str = ""  # what it failed for: link, stall, busy, peer, node, room, io, version, other
    started_at: float = 0.0
    ended_at: float = 0.0
    attestation: str = ""  # an operator's word that the other side is fenced, by which the VM was taken over
    plan_id: PlanId | None = None
    predicted: Prediction | None = None  # by the plan


class Plan(Struct, frozen=True):
    """How a migration would go, and what it was told from: once that has changed, the plan is not applied."""

    id: PlanId
    vm_id: VmId
    vm_name: str
    spec: VmSpec
    owner_epoch: int
    state: str  # of the VM: running or paused
    node_id: NodeId
    target: ClusterId
    target_cluster: str
    target_node: str
    policy: MigrationPolicy  # as it was asked for
    strategy: Strategy  # that was chosen
    survey: Survey
    link: LinkSample
    reasons: tuple[str, ...]
    predicted: Prediction | None  # None: a stream that would never end
    made_at: float


class ProgressPoint(Struct, frozen=True):
    """What a migration told of itself at one moment."""

    at: float
    progress: MigrationProgress


class MigrationSeries(Struct, frozen=True):
    """How a migration went, by time."""

    items: tuple[ProgressPoint, ...]


class BatchMove(Struct, frozen=True):
    """One VM of a batch: how far it is, and what became of it."""

    vm_id: VmId
    vm_name: str
    source_node: str
    predicted_bytes: int  # of the guest: all its memory and disks
    predicted: Prediction | None = None  # once it has been looked at: what is through soonest goes first
    target_node: str = ""  # that was named, or chosen in this cluster
    migration_id: MigrationId | None = None  # the last attempt
    phase: str = "waiting"  # held: it cannot move yet; then its migration's
    done_bytes: int = 0
    total_bytes: int = 0
    outcome: str = ""  # its migration's; unverified: it has moved, and nobody has seen it well; stays: it does not run
    problem: Problem | None = None  # what it failed for, stays or waits for, or the attempt before broke for


class Batch(Struct, frozen=True):
    """Many VMs on their way to one place, a few at a time."""

    id: BatchId
    target_cluster: str
    target_node: str = ""  # empty: whichever has room
    drains: str = ""  # the node that is emptied by it
    concurrency: int = 2  # at most, of all migrations at its link, and at one host
    priority: int = 0  # at one link the higher goes first
    moves: tuple[BatchMove, ...] = ()  # in their order
    begins_at: float = 0.0  # when its time window opens; 0: no move waits for that
    cancelling: bool = False
    outcome: str = ""  # empty while under way; succeeded, partial, failed, cancelled
    problem: Problem | None = None  # of the batch itself, beside those of its moves
    started_at: float = 0.0
    ended_at: float = 0.0


class Checkpoint(Struct, frozen=True):
    """A VM as it was at one instant, kept at a node."""

    id: CheckpointId
    vm_id: VmId
    vm_name: str
    node_id: NodeId  # that keeps it
    state: str  # creating, ready, restoring, deleting
    job_id: str = ""  # of the last work on it
    begun_at: float = 0.0
    progress: WorkProgress = field(default_factory=WorkProgress)  # of that work
    facts: CheckpointFacts | None = None  # once it is whole
    problem: Problem | None = None  # what the last work on it failed for


class Repository(Struct, frozen=True):
    """Where backups are kept. What opens it is kept by the controller, and is no part of this."""

    id: RepositoryId
    name: str
    address: str
    node_id: NodeId  # that makes, checks and prunes it
    lock: str  # made (a key of the controller's making), passphrase, file, recovery, open
    state: str  # creating, ready, checking, pruning
    job_id: str = ""  # of the last work on it
    begun_at: float = 0.0
    progress: WorkProgress = field(default_factory=WorkProgress)  # of that work
    made: Made | None = None  # once it is there
    warnings: tuple[str, ...] = ()  # what its store cannot do
    checked: CheckResult | None = None  # the last check that came to its end
    pruned: PruneResult | None = None  # the last prune that did
    problem: Problem | None = None  # what the last work on it failed for


class Backup(Struct, frozen=True):
    """The disks of a VM as they were at one instant, in a repository."""

    id: BackupId
    vm_id: VmId
    vm_name: str
    repository_id: RepositoryId
    repository_name: str
    node_id: NodeId  # that has made it
    state: str  # creating, ready, deleting
    job_id: str = ""  # of the last work on it
    begun_at: float = 0.0
    progress: WorkProgress = field(default_factory=WorkProgress)  # of that work
    facts: BackupFacts | None = None  # once it is whole
    problem: Problem | None = None  # what the last work on it failed for


class PeerCluster(Struct, frozen=True):
    """Another cluster that this one trusts."""

    id: ClusterId
    name: str
    address: str
    root_pem: str
    state: str  # joining, joined
    joined_at: float = 0.0
    seen_at: float = 0.0


class JoinToken(Struct, frozen=True):
    """A single-use invitation; only the SHA-256 of its secret is kept."""

    id: TokenId
    purpose: str  # peer or node
    secret_sha256: str
    expires_at: float
    used_at: float | None = None
    used_by: str = ""


class Job(Struct, frozen=True):
    """Long work: a workflow as people see it."""

    id: str
    workflow: str
    subject: str  # path of the resource that it works on
    state: str
    step: str = ""
    problem: Problem | None = None

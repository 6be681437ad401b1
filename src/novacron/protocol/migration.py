"""The words of a migration: orders, progress, the hand-over between two nodes.

``epoch`` is the owner epoch that this attempt burned: it only grows, and a message of an older one is refused.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from novacron.core.ids import MigrationId, VmId
from novacron.protocol.time_window import TimeWindow
from novacron.protocol.vm import VmSpec

PHASES: Final = (
    "waiting",  # for its time window, or for a while after an attempt that broke
    "prepare",  # the destination is being started; the source owns and runs
    "copy",  # disks, then RAM by rounds; the source runs
    "switchover",  # the source is paused; the last pages, blocks and the device state move
    "ready",  # the destination holds everything, durably, and may not give up by itself
    "committed",  # handed over: the point of no return has passed
    "following",  # post-copy: the destination runs, the rest of its memory comes after it: no way back until it has
    "verify",  # the destination runs; the guest is looked at
    "window",  # verified; the source keeps its paused VM until the window ends
    "done",
)


Priority = Annotated[int, Meta(ge=-9, le=9)]
Strategy = Literal["stream", "cold", "native", "postcopy"]
WantedStrategy = Literal["stream", "cold", "native", "postcopy", "auto"]
DIRECT: Final = frozenset({"native", "postcopy"})  # those of which the destination's QEMU writes the memory itself
WhenBusy = Literal["wait", "throttle", "stop", "postcopy"]
Verify = Literal["any", "agent"]
BusyThen = Literal["throttle", "stop", "postcopy", "fail"]
OnUnverified = Literal["rollback", "keep"]
ProgramName = Annotated[str, Meta(max_length=63, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")]

Notes = Annotated[tuple[Annotated[str, Meta(max_length=1000)], ...], Meta(max_length=64)]


class GuestCheck(Struct, frozen=True):
    """What counts as a guest that has arrived well, within ``within_ms``.

    ``any``: its virtual CPUs or its disks do something, or its agent answers. ``agent``: its agent answers. ``probe``
    names a program of the destination node's operator that must succeed besides; empty: none.
    """

    verify: Verify = "any"
    probe: ProgramName = ""
    within_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10_000


class Verdict(Struct, frozen=True):
    """What a guest that has arrived was found to be: ``word`` is the sign that it gave, or what is missing."""

    alive: bool
    word: Annotated[str, Meta(max_length=600)] = ""
    lifeless: bool = False  # it gave no sign at all: it has done nothing since it arrived
    broken: bool = False  # a part of its memory will never come: nothing brings it back
    notes: Notes = ()  # what failed beside it, of the operator's programs


class MigrationPolicy(Struct, frozen=True):
    """How a migration may go about its work.

    ``strategy`` ``stream``: the guest runs while it is copied. ``cold``: it stands still while its memory is, so each
    page moves once. ``native``: it runs while its memory goes straight from QEMU to QEMU, for a link that is faster
    than pages are encoded. ``postcopy``: its memory moves once while it runs here, and what it has changed since
    follows it when it runs there. ``auto``: as a plan chooses that is made before. ``when_busy`` is what happens to a
    guest that changes its memory faster than the link takes it: ``wait`` for a calmer moment, ``throttle`` its CPUs,
    ``stop`` it until the rest has moved, or let it go ahead of it by another attempt, ``postcopy``. ``verify``,
    ``probe`` and ``verify_within_ms`` are a ``GuestCheck``; ``on_unverified`` is what happens to a guest that does not
    pass it, or dies within the window: back to the source, or it stays. ``priority``: of what shares a link; three
    steps more are twice as much of it. ``window``: the hours in which it may begin; a plan is made first then, and what
    is not expected to be through before they are over waits for the next.
    """

    strategy: WantedStrategy = "stream"
    when_busy: WhenBusy = "wait"
    busy_after_ms: Annotated[int, Meta(ge=0)] = 0  # how long such a guest is waited for; 0: as long as it takes
    busy_then: BusyThen = "throttle"  # what the attempt after that one does
    max_downtime_ms: Annotated[int, Meta(ge=1)] = 300
    bandwidth_bytes_s: Annotated[int, Meta(ge=1)] | None = None  # None: as much as the link gives
    bandwidth_share: Annotated[float, Meta(gt=0, le=1)] | None = None  # at most, of the rate that a plan takes it for
    priority: Priority = 0
    streams: Annotated[int, Meta(ge=0, le=16)] = 0  # 0: as many as the link needs
    compression_level: Annotated[int, Meta(ge=0, le=19)] = 1  # 0: by what link and content are
    verify: Verify = "any"
    probe: ProgramName = ""
    verify_within_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10_000
    on_unverified: OnUnverified = "rollback"
    verify_window_ms: Annotated[int, Meta(ge=0)] = 30_000
    move_disks: bool = True
    stall_after_ms: Annotated[int, Meta(ge=100)] = 60_000  # of an attempt in which nothing moves, until it is given up
    retry_for_ms: Annotated[int, Meta(ge=0)] = 3_600_000  # how long after its start another attempt may begin
    window: TimeWindow | None = None


def check_of(policy: MigrationPolicy) -> GuestCheck:
    """What a policy says about the guest at its destination."""
    return GuestCheck(policy.verify, policy.probe, policy.verify_within_ms)


class ByteSplit(Struct, frozen=True):
    """Where guest bytes went (``*_bytes``: guest content) and what they cost (``*_wire_bytes``)."""

    unchanged_bytes: int = 0
    zero_bytes: int = 0
    dedup_bytes: int = 0
    delta_bytes: int = 0
    literal_bytes: int = 0
    zero_wire_bytes: int = 0
    dedup_wire_bytes: int = 0
    delta_wire_bytes: int = 0
    compressed_wire_bytes: int = 0


class MigrationProgress(Struct, frozen=True):
    """What is known while a migration runs; every figure only grows but rate, dirty rate and ETA."""

    phase: str = "prepare"
    round: int = 0
    done_bytes: int = 0  # guest bytes dealt with, all rounds together
    total_bytes: int = 0  # of the plan as it stands: grows with each round
    rate_bytes_s: float = 0.0  # guest bytes
    wire_rate_bytes_s: float = 0.0
    dirty_rate_bytes_s: float = 0.0
    eta_ms: int | None = None
    wire_bytes: int = 0
    rtt_ms: float = 0.0
    streams: int = 0  # connections that it uses
    link_share: float = 1.0  # of what its node sends to that cluster
    compression_level: int = 0  # of zstd, as it is now; 0: nothing is compressed
    throttle_percent: int = 0  # of CPU time taken from the guest, so that it converges
    converging: bool | None = None
    note: str = ""
    stalled_ms: int = 0  # for how long nothing has moved, once it is named as stalled
    split: ByteSplit = field(default_factory=ByteSplit)


class MigrationSummary(Struct, frozen=True):
    """What a finished migration came to."""

    total_ms: int
    downtime_ms: int
    rounds: int
    guest_bytes: int  # RAM plus disk content that had to be at the other side
    wire_bytes: int  # everything sent by the source, TLS records excluded
    ram_wire_bytes: int
    disk_wire_bytes: int
    bandwidth_bytes_s: int
    verified: bool
    split: ByteSplit
    verdict: str = ""  # by what it was verified, or what was missing
    lifeless: bool = False  # it gave no sign of life at all
    broken: bool = False  # a part of its memory will never come
    notes: Notes = ()  # what failed at the destination beside it
    link_share: float = 1.0  # of what its node has sent to that cluster meanwhile


class OpenRequest(Struct, frozen=True):
    """To the source's node: burn an epoch for this attempt and say what there is to move."""

    migration_id: MigrationId
    vm_id: VmId


class OutgoingOffer(Struct, frozen=True):
    """The source's answer."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    spec: VmSpec
    source_node: str  # its SPIFFE id
    source_address: str
    known_state: str = ""  # name of old disk content that both sides may have; what was written since is marked
    running: bool = True  # else it is paused, and stays so


class IncomingOrder(Struct, frozen=True):
    """To the destination's node (through its controller): make ready to receive."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    spec: VmSpec
    source_node: str
    source_address: str
    known_state: str = ""
    running: bool = True  # else it is paused, and stays so
    node: str = ""  # name or id of the node that is wanted; empty: the destination's cluster chooses
    check: GuestCheck = field(default_factory=GuestCheck)
    rolls_back: MigrationId | None = None  # the migration that this one is the way back of
    refused: tuple[MigrationId, ...] = ()  # attempts before it whose nodes could not take it: another one is chosen
    direct: bool = False  # its QEMU will write the memory itself
    post_copy: bool = False  # a part of its memory will come after it


class IncomingReady(Struct, frozen=True):
    """The destination's answer: where the data plane connects."""

    migration_id: MigrationId
    address: str
    node: str  # SPIFFE id


class OutgoingOrder(Struct, frozen=True):
    """To the source's node: move it."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    target: IncomingReady
    policy: MigrationPolicy


class MigrationRef(Struct, frozen=True):
    """One attempt, named."""

    migration_id: MigrationId
    vm_id: VmId


class MigrationReport(Struct, frozen=True):
    """A node's word on one attempt; ``state`` is what its journal says."""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int
    role: str  # source or destination
    state: str  # of migration.handover: open, moving, committed, settled, … or prepared, ready, running, …
    progress: MigrationProgress = field(default_factory=MigrationProgress)
    summary: MigrationSummary | None = None
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""
    handed_over_at: float = 0.0  # at a source: when it was committed
    notes: Notes = ()  # what failed of the operator's programs


class Condition(Struct, frozen=True):
    """How a guest is that was handed over: of its node to the source's, and of that to its controller.

    ``well``; ``dead``: it has crashed, or its QEMU has gone, unasked; ``left``: it was stopped or has moved on, and
    there is nothing to watch; ``silent``: its node does not answer.
    """

    state: Literal["well", "dead", "left", "silent"]
    cause: str = ""


class HandoverQuestion(Struct, frozen=True):
    """Node to node, after a cut or a restart: what became of this attempt?"""

    migration_id: MigrationId
    vm_id: VmId
    epoch: int


class HandoverAnswer(Struct, frozen=True):
    """Source: pending, committed, aborted. Destination: pending, ready, following, verifying, running, lost, stopped.

    ``lost`` is also said of a guest that ran and is given back; ``epoch`` is the highest that was burned there, then.
    """

    state: str
    epoch: int
    verdict: Verdict | None = None  # of one that runs

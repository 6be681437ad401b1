"""The words of a plan: what there is to move, what the link gives, what is to be expected."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from novacron.core.ids import VmId
from novacron.protocol.vm import VmSpec

Held = Literal["nothing", "similar", "same"]


class Interval(Struct, frozen=True):
    """A figure, and the bounds between which nine of ten lie."""

    value: float
    low: float
    high: float


class Prediction(Struct, frozen=True):
    """What a migration is expected to come to."""

    total_ms: Interval
    downtime_ms: Interval
    wire_bytes: Interval


class SurveyRequest(Struct, frozen=True):
    """To the node of a VM: what would there be to move?"""

    vm_id: VmId
    compression_level: Annotated[int, Meta(ge=1, le=19)] = 1


class Survey(Struct, frozen=True):
    """The answer. What is said of memory was measured on a sample of it."""

    source_node: str  # its SPIFFE id
    running: bool
    memory_bytes: int
    zero_bytes: int
    ram_wire_bytes: int  # all of it once, where nothing of it lies
    ram_return_bytes: int  # the same, where it lies as it came here
    encode_bytes_s: float  # how fast this node makes frames of memory
    dirty_bytes_s: float  # of a guest that has just been looked at
    working_set_bytes: int  # more than that the guest does not dirty, however long one waits
    dirty_cost: float  # bytes on the wire for each that is sent again
    disk_bytes: int  # that the disks take
    disk_return_bytes: int  # written since the VM came here
    known_state: str = ""  # name of the content that the cluster it came from may have
    direct: bool = False  # its memory can go straight from hypervisor to hypervisor


class OutlookRequest(Struct, frozen=True):
    """To the destination's cluster: where would this VM go, and what of it lies there?"""

    vm_id: VmId
    spec: VmSpec
    source_node: str
    known_state: str = ""
    node: str = ""  # name or id of the node that is wanted; empty: that cluster chooses


class Outlook(Struct, frozen=True):
    """The answer."""

    node_name: str
    node: str  # SPIFFE id
    address: str
    held: Held
    direct: bool = False  # memory can come there straight from a hypervisor


class HoldingsRequest(Struct, frozen=True):
    """To a node: what lies there of a VM, or of one like it?"""

    vm_id: VmId
    spec: VmSpec
    known_state: str


class Holdings(Struct, frozen=True):
    """``same``: what the VM was when it left there; ``similar``: something that is to be looked at."""

    held: Held


class ProbeRequest(Struct, frozen=True):
    """To the source's node: how fast is the way to that node?"""

    node: str  # SPIFFE id
    address: str
    streams: Annotated[int, Meta(ge=0, le=16)] = 0  # as of the policy
    bandwidth_bytes_s: Annotated[int, Meta(ge=1)] | None = None


class LinkSample(Struct, frozen=True):
    """What a probe has seen."""

    rate_bytes_s: float
    rtt_ms: float

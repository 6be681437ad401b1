"""Which node takes a VM: the first that can, those with the most free memory first. One that is drained takes none.

What no node can give is said before anything is made or any guest is stopped.
"""

from collections.abc import Collection, Iterable
from typing import Final

from novacron.control.errors import NodeUnreachableError, NoRoomError
from novacron.core.units import MIB, format_size
from novacron.protocol.resources import Node
from novacron.protocol.vm import VmSpec

READY: Final = "ready"
QEMU_OVERHEAD_BYTES: Final = 64 * MIB  # of one process, beside the guest's RAM


def place(
    nodes: Iterable[Node], spec: VmSpec, wanted: str = "", *, source: str = "", avoid: Collection[str] = ()
) -> Node:
    """The node for ``spec``; ``wanted`` (a name or an id) leaves no choice.

    ``source`` is the node that it leaves; those of ``avoid`` (names) come last, however much room they have.
    Raises NoRoomError with every reason, NodeUnreachableError when silence is the only one: it may pass.
    """
    candidates = [node for node in nodes if not wanted or wanted in {node.name, node.id}]
    reasons = []
    for node in sorted(candidates, key=lambda node: (node.name in avoid, -node.capabilities.memory_free_bytes)):
        reason = "is where it is" if node.name == source else _obstacle(node, spec)
        if not reason:
            return node
        reasons.append(f"{node.name} {reason}")
    where = f"no node {wanted!r}" if wanted else "no node has joined"
    eligible = [node for node in candidates if node.name != source and not node.drain]
    silent = bool(eligible) and all(node.state != READY for node in eligible)
    error = NodeUnreachableError if silent else NoRoomError
    raise error(f"no node can take VM {spec.name}: {'; '.join(reasons) or where}", next_command="novacron node list")


def _obstacle(node: Node, spec: VmSpec) -> str:
    """Why ``node`` cannot take ``spec``; empty when it can."""
    here = node.capabilities
    memory = spec.memory_bytes + QEMU_OVERHEAD_BYTES
    disks = sum(disk.size_bytes for disk in spec.disks)
    if node.drain or node.state != READY:
        return f"is {node.drain or node.state}"
    if spec.machine not in here.machine_types:
        return f"has no machine type {spec.machine}"
    if spec.cpu in {"host", "max"} and here.accelerator != "kvm":
        return f"has no KVM for CPU model {spec.cpu}"
    if memory > here.memory_free_bytes:
        return f"has {format_size(here.memory_free_bytes)} of memory free, {format_size(memory)} are needed"
    if disks > here.disk_free_bytes:
        return f"has {format_size(here.disk_free_bytes)} of disk free, {format_size(disks)} are needed"
    return ""

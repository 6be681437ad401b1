"""What a resize may change, whatever the hypervisor."""

from novacron.core.units import format_size
from novacron.hypervisor.errors import BadImageError, VmStateError
from novacron.protocol.vm import VmSpec


def check_resize(old: VmSpec, new: VmSpec, *, running: bool) -> None:
    """Raises VmStateError, BadImageError: only sizes change, disks only grow, CPUs and memory not while it runs."""
    if [d.id for d in old.disks] != [d.id for d in new.disks] or old.nics != new.nics:
        raise VmStateError("a resize changes CPUs, memory and the size of disks only")
    if running and (old.vcpus, old.memory_bytes) != (new.vcpus, new.memory_bytes):
        raise VmStateError(
            f"VM {old.name} runs: CPUs and memory change while it is stopped",
            next_command=f"novacron vm stop {old.name}",
        )
    for before, after in zip(old.disks, new.disks, strict=True):
        if after.size_bytes < before.size_bytes:
            raise BadImageError(f"disk {before.id} has {format_size(before.size_bytes)}: disks only grow")

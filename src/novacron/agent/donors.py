"""Which VM here is the likest to one that comes: made from the same images, its content is the best guess at it.

A guess costs a local copy and digests on the wire; what is right of it need not cross the link.
"""

from pathlib import Path

from novacron.agent.journal import Journal
from novacron.core.ids import ImageId, VmId
from novacron.hypervisor.driver import Driver
from novacron.hypervisor.errors import VmUnknownError
from novacron.protocol.vm import VmSpec


def find_donor(driver: Driver, vm_id: VmId, spec: VmSpec) -> VmId | None:
    """The VM that was here last of those with a disk of the same name, size and image; None when there is none."""
    wanted = _disks(spec)
    found = [other for other in driver.vms() if other != vm_id and wanted & _disks_of(driver, other)]
    return max(found, key=lambda other: driver.stored(other).changed_at, default=None)


def ram_image(driver: Driver, journal: Journal, donor: VmId, spec: VmSpec) -> Path | None:
    """The RAM of a donor with as much memory, as it came here or as it left; None when there is none."""
    facts = journal.facts(donor)
    if driver.spec(donor).memory_bytes != spec.memory_bytes:
        return None
    return next((Path(path) for path in (facts.arrival_image, facts.cache_image) if path and Path(path).exists()), None)


def _disks_of(driver: Driver, vm_id: VmId) -> set[tuple[str, int, ImageId]]:
    try:
        return _disks(driver.spec(vm_id))
    except VmUnknownError:
        return set()


def _disks(spec: VmSpec) -> set[tuple[str, int, ImageId]]:
    return {(disk.id, disk.size_bytes, disk.image) for disk in spec.disks if disk.image is not None}

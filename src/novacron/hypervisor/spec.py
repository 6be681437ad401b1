"""What a VM is: its parts (defined in ``protocol.vm``, because they cross processes), checked and compared."""

import hashlib

import msgspec

from novacron.core.errors import InvalidInputError
from novacron.core.ids import check_name
from novacron.core.units import KIB, MIB, PAGE_BYTES
from novacron.protocol.vm import CloudInitSeed, DiskSpec, HostCapabilities, KernelBoot, NicSpec, VmSpec

__all__ = [
    "CloudInitSeed",
    "DiskSpec",
    "HostCapabilities",
    "KernelBoot",
    "NicSpec",
    "VmSpec",
    "canonical_digest",
    "check_spec",
    "fit_memory",
    "sizes",
]

MIN_MEMORY_BYTES = 1 * MIB
SECTOR_BYTES = 512
_BROKEN_STEP_BYTES = 256 * KIB
_BROKEN_BEFORE = (9, 0, 0)


def check_spec(spec: VmSpec) -> VmSpec:
    """``spec`` when a VM can be made from it; raises InvalidInputError."""
    check_name(spec.name, "VM")
    if spec.memory_bytes < MIN_MEMORY_BYTES or spec.memory_bytes % PAGE_BYTES:
        raise InvalidInputError(f"{spec.memory_bytes} bytes of memory: use whole pages of 4 KiB, at least 1 MiB")
    names = [disk.id for disk in spec.disks] + [nic.id for nic in spec.nics]
    for name in names:
        check_name(name, "disk or network card")
    if len(set(names)) != len(names):
        raise InvalidInputError("two disks or network cards of the VM have the same id")
    for disk in spec.disks:
        if disk.size_bytes % PAGE_BYTES:
            raise InvalidInputError(f"disk {disk.id} has {disk.size_bytes} bytes: use a multiple of 4 KiB")
    if spec.boot is None and not spec.disks:
        raise InvalidInputError("a VM needs a kernel or a disk to boot from", next_command="novacron vm create --help")
    return spec


def fit_memory(memory_bytes: int, *, accelerator: str, qemu_version: tuple[int, int, int]) -> int:
    """The size to pin: under TCG, QEMU before 9.0 corrupts guests in live migration when RAM is a multiple of 256 KiB.

    The fault is in the aligned fast path of the dirty bitmap's synchronisation (mended upstream in March 2024); 8 KiB
    less takes the slow, right path. Sizes that are no such multiple, KVM and newer QEMU are left alone.
    """
    affected = accelerator == "tcg" and qemu_version < _BROKEN_BEFORE and memory_bytes % _BROKEN_STEP_BYTES == 0
    return memory_bytes - 8 * KIB if affected else memory_bytes


def sizes(spec: VmSpec) -> list[tuple[str, int]]:
    """Names and sizes of a VM's disks, in order."""
    return [(disk.id, disk.size_bytes) for disk in spec.disks]


def canonical_digest(spec: VmSpec) -> bytes:
    """32 bytes that are equal for two specs exactly when both make the same machine.

    Names, images and seeds may differ (they made the disks, they are not the machine); order counts, since it gives
    the PCI slots.
    """
    disks, nics = sizes(spec), [(nic.id, nic.mac) for nic in spec.nics]
    parts = (spec.machine, spec.cpu, spec.vcpus, spec.memory_bytes, spec.firmware, disks, nics, spec.seed is not None)
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=32).digest()

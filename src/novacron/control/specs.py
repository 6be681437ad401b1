"""From what people ask for to what a VM is: names resolved, everything pinned."""

import secrets

import msgspec

from novacron.control.kinds import IMAGES
from novacron.core.errors import InvalidInputError
from novacron.core.ids import check_name
from novacron.core.units import MIB, format_size
from novacron.database.database import Transaction
from novacron.protocol.resources import Image
from novacron.protocol.rest import DiskRequest, NicRequest, ResizeRequest, VmRequest
from novacron.protocol.vm import DiskSpec, KernelBoot, NicSpec, VmSpec

LEAST_MEMORY_BYTES = 16 * MIB


def specify(tx: Transaction, request: VmRequest) -> VmSpec:
    """The specification that ``request`` asks for; raises InvalidInputError, ResourceUnknownError."""
    check_name(request.name, "VM")
    if request.memory_bytes < LEAST_MEMORY_BYTES:
        raise InvalidInputError(f"a VM needs at least {format_size(LEAST_MEMORY_BYTES)} of memory")
    if not request.kernel and (request.initrd or request.append):
        raise InvalidInputError("an initrd and kernel arguments go with a kernel: give --kernel too")
    if not request.kernel and not request.disks:
        raise InvalidInputError("a VM boots from a kernel or from a disk: give --kernel, --image or --disk")
    return VmSpec(
        name=request.name,
        vcpus=request.vcpus,
        memory_bytes=request.memory_bytes,
        machine=request.machine,
        cpu=request.cpu,
        firmware=request.firmware,
        boot=_boot(tx, request),
        disks=tuple(_disk(tx, number, disk) for number, disk in enumerate(request.disks)),
        nics=tuple(_nic(number, nic) for number, nic in enumerate(request.nics)),
        seed=request.cloud_init,
    )


def resized(spec: VmSpec, request: ResizeRequest) -> VmSpec:
    """``spec`` at another size; raises InvalidInputError for a disk that is not there, or would shrink."""
    sizes = {disk.id: disk.size_bytes for disk in spec.disks}
    for name, size in request.disks.items():
        if name not in sizes:
            raise InvalidInputError(f"VM {spec.name} has no disk {name!r}: it has {', '.join(sizes) or 'none'}")
        if size < sizes[name]:
            raise InvalidInputError(f"disk {name} has {format_size(sizes[name])}: a disk only grows")
    return msgspec.structs.replace(
        spec,
        vcpus=request.vcpus or spec.vcpus,
        memory_bytes=request.memory_bytes or spec.memory_bytes,
        disks=tuple(
            msgspec.structs.replace(disk, size_bytes=request.disks.get(disk.id, disk.size_bytes)) for disk in spec.disks
        ),
    )


def copied(spec: VmSpec, name: str) -> VmSpec:
    """The same machine as a VM of its own: its disks are made from no image, and its cards have new addresses."""
    return msgspec.structs.replace(
        spec,
        name=name,
        disks=tuple(msgspec.structs.replace(disk, image=None) for disk in spec.disks),
        nics=tuple(msgspec.structs.replace(nic, mac=_new_mac()) for nic in spec.nics),
    )


def images_of(tx: Transaction, spec: VmSpec, *, disks: bool) -> list[Image]:
    """What the node needs to start it (kernel, initrd), and with ``disks`` what its disks are made from."""
    wanted = [spec.boot.kernel, spec.boot.initrd] if spec.boot is not None else []
    if disks:
        wanted += [disk.image for disk in spec.disks]
    return [IMAGES.get(tx, image).value for image in dict.fromkeys(wanted) if image]


def _boot(tx: Transaction, request: VmRequest) -> KernelBoot | None:
    if not request.kernel:
        return None
    kernel = IMAGES.get(tx, request.kernel).value.id
    return KernelBoot(kernel, IMAGES.get(tx, request.initrd).value.id if request.initrd else None, request.append)


def _disk(tx: Transaction, number: int, request: DiskRequest) -> DiskSpec:
    if not request.image:
        if not request.size_bytes:
            raise InvalidInputError("an empty disk needs a size")
        return DiskSpec(f"disk{number}", request.size_bytes)
    image = IMAGES.get(tx, request.image).value
    if image.format == "blob":
        raise InvalidInputError(f"image {image.name} is a blob (a kernel or an initrd), not a disk")
    if request.size_bytes and request.size_bytes < image.virtual_size_bytes:
        raise InvalidInputError(
            f"image {image.name} holds {format_size(image.virtual_size_bytes)}: a smaller disk would cut it off"
        )
    return DiskSpec(f"disk{number}", request.size_bytes or image.virtual_size_bytes, image.id)


def _nic(number: int, request: NicRequest) -> NicSpec:
    mac = request.mac or _new_mac()
    if request.mode == "tap" and not request.bridge:
        raise InvalidInputError("a tap needs the name of a bridge: --nic tap:br0")
    return NicSpec(f"nic{number}", mac, request.mode, request.bridge)


def _new_mac() -> str:
    return f"52:54:00:{secrets.randbits(24).to_bytes(3, 'big').hex(':')}"

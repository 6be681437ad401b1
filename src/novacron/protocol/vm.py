"""What a VM is made of, as it crosses processes and stands in databases."""

from typing import Annotated

from msgspec import Meta, Struct

from novacron.core.ids import ImageId

Name = Annotated[str, Meta(min_length=1, max_length=63)]
Vcpus = Annotated[int, Meta(ge=1, le=256)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 62)]
ShortText = Annotated[str, Meta(max_length=4096)]
LongText = Annotated[str, Meta(max_length=65536)]


class KernelBoot(Struct, frozen=True, forbid_unknown_fields=True):
    """A boot without firmware: kernel and initrd are images of the cluster."""

    kernel: ImageId
    initrd: ImageId | None = None
    append: ShortText = ""


class DiskSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One virtio disk; its place in the list is its PCI slot."""

    id: Name
    size_bytes: Bytes
    image: ImageId | None = None  # what it was made from; empty when None


class NicSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One virtio network card; ``mode`` is ``user`` (NAT), ``tap`` (a bridge of the host) or ``none`` (no cable)."""

    id: Name
    mac: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]
    mode: Annotated[str, Meta(pattern="^(user|tap|none)$")] = "user"
    bridge: Annotated[str, Meta(max_length=15)] = ""


class CloudInitSeed(Struct, frozen=True, forbid_unknown_fields=True):
    """What cloud-init reads at the first boot (the NoCloud source)."""

    user_data: LongText
    meta_data: LongText = ""
    network_config: LongText = ""


class VmSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM as its owner asked for it, with everything pinned that a migration must find equal on both sides."""

    name: Name
    vcpus: Vcpus
    memory_bytes: Bytes
    machine: Name = "pc-q35-7.2"
    cpu: Name = "qemu64"
    firmware: Annotated[str, Meta(pattern="^(bios|uefi)$")] = "bios"
    boot: KernelBoot | None = None
    disks: Annotated[tuple[DiskSpec, ...], Meta(max_length=16)] = ()
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=8)] = ()
    seed: CloudInitSeed | None = None


class HostCapabilities(Struct, frozen=True):
    """What one node can run, and the room it has now; nothing, until it has been asked."""

    qemu_version: tuple[int, int, int] = (0, 0, 0)
    machine_types: tuple[str, ...] = ()
    accelerator: str = ""  # "kvm" or "tcg", by a real boot test
    cpus: int = 0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0
    direct: bool = False  # a VM's memory can come and go straight from hypervisor to hypervisor

"""What a VM is: its parts (defined in ``protocol.vm``, because they cross processes), checked and compared."""

from novacron.protocol.vm import (
    CloudInitSeed,
    DiskSpec,
    HostCapabilities,
    KernelBoot,
    NicSpec,
    VmSpec,
)

__all__ = ["CloudInitSeed", "DiskSpec", "HostCapabilities", "KernelBoot", "NicSpec", "VmSpec"]

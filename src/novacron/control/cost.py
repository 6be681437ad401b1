"""What a move is expected to cost, before it begins: by it a batch is ordered."""

from novacron.protocol.vm import VmSpec


def predict_bytes(spec: VmSpec) -> int:
    """Guest bytes: all its memory and all its disks, since how much of them is in use is not known here."""
    return spec.memory_bytes + sum(disk.size_bytes for disk in spec.disks)

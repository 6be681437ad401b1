"""Guest bytes by what became of them, and what they cost on the wire."""

from dataclasses import dataclass
from typing import Self

from novacron.content.batch import Packed
from novacron.content.encoded import Encoded
from novacron.core.units import PAGE_BYTES
from novacron.protocol.migration import ByteSplit


@dataclass(slots=True)
class Traffic:
    """Sums; ``*_wire_bytes`` are compressed, all others are guest content."""

    unchanged_bytes: int = 0
    zero_bytes: int = 0
    dedup_bytes: int = 0
    delta_bytes: int = 0
    literal_bytes: int = 0
    zero_wire_bytes: int = 0
    dedup_wire_bytes: int = 0
    delta_wire_bytes: int = 0
    compressed_wire_bytes: int = 0

    @classmethod
    def of_batch(cls, encoded: Encoded, packed: Packed) -> Self:
        """One batch. Zero pages and copies are operations only: they share the bytes of those by their number.

        A page that the other side has on a disk is a copy, too.
        """
        unchanged, zero, same, delta, literal, on_disk = encoded.counts
        copy = same + on_disk
        told = zero + copy
        zero_wire = packed.ops_bytes * zero // told if told else 0
        overhead = len(packed.body) - packed.ops_bytes - packed.literal_bytes - packed.delta_bytes
        return cls(
            unchanged_bytes=unchanged * PAGE_BYTES,
            zero_bytes=zero * PAGE_BYTES,
            dedup_bytes=copy * PAGE_BYTES,
            delta_bytes=delta * PAGE_BYTES,
            literal_bytes=literal * PAGE_BYTES,
            zero_wire_bytes=zero_wire,
            dedup_wire_bytes=packed.ops_bytes - zero_wire if copy else 0,
            delta_wire_bytes=packed.delta_bytes,
            compressed_wire_bytes=packed.literal_bytes + overhead + (0 if copy else packed.ops_bytes - zero_wire),
        )

    def add(self, other: "Traffic") -> None:
        """Add ``other`` to this."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def guest_bytes(self) -> int:
        """Guest content dealt with."""
        return self.unchanged_bytes + self.zero_bytes + self.dedup_bytes + self.delta_bytes + self.literal_bytes

    @property
    def wire_bytes(self) -> int:
        """What it cost."""
        return self.zero_wire_bytes + self.dedup_wire_bytes + self.delta_wire_bytes + self.compressed_wire_bytes

    def split(self) -> ByteSplit:
        """The same as a message."""
        return ByteSplit(**{name: getattr(self, name) for name in self.__slots__})

"""What an encoder says of a batch of pages or blocks."""

from dataclasses import dataclass
from typing import Final

CLASSES: Final = ("unchanged", "zero", "copy", "delta", "literal", "block")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch before compression: operations, whole blocks, patches; and how many blocks were of which class."""

    ops: bytes
    literals: bytes
    deltas: bytes
    counts: tuple[int, int, int, int, int, int]  # in the order of CLASSES

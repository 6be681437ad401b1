"""RAM pages against a picture of what the other side holds: unchanged, zero, copy, delta or literal."""

from dataclasses import dataclass
from typing import Final

from typing_extensions import Buffer

from novacron.content import _kernels
from novacron.content.digest import root_digest
from novacron.content.errors import MalformedContentError

NO_DATA: Final = 0xFFFF_FFFF  # as a page's position: a page of zeros
CLASSES: Final = ("unchanged", "zero", "copy", "delta", "literal")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch before compression: operations, whole blocks, patches; and how many blocks were of which class."""

    ops: bytes
    literals: bytes
    deltas: bytes
    counts: tuple[int, int, int, int, int]  # in the order of CLASSES


class PageEncoder:
    """Encodes pages against ``shadow``, a writable buffer that holds what the other side's RAM holds now.

    Each call says what must be done there, in order, and brings the shadow up to date. A copy is told only when the
    bytes themselves are equal in the shadow; a delta is the XOR of old and new with its zero runs cut out. Not safe for
    two calls at a time.
    """

    def __init__(self, shadow: Buffer, key: bytes) -> None:
        self._kernel = _kernels.PageEncoder(shadow, key)
        self._key = key

    def encode(self, numbers: Buffer, positions: Buffer, data: Buffer) -> Encoded:
        """Pages ``numbers`` (u32), each 4 KiB of ``data`` from its position (u32) on, or zeros at ``NO_DATA``.

        Raises ValueError for a page or data outside.
        """
        return Encoded(*self._kernel.encode(numbers, positions, data))

    def root(self) -> bytes:
        """Root digest of the shadow; pages of zeros count as the digest zero."""
        return root_digest(self._kernel.digests(), self._key)


def apply_pages(ram: Buffer, encoded: Encoded) -> None:
    """Do in ``ram`` what ``encoded`` says.

    Raises MalformedContentError: nothing outside of ``ram`` was touched then, what is inside is not defined.
    """
    try:
        _kernels.apply_pages(ram, encoded.ops, encoded.literals, encoded.deltas)
    except _kernels.MalformedError as error:
        raise MalformedContentError(f"a batch of pages is malformed: {error}") from error

"""Records of one width, sorted by the 16 bytes that they begin with, which are digests: looked up many at once."""

from typing import Final

from typing_extensions import Buffer

from novacron.content import _kernels

PREFIX_BYTES: Final = 16


def find_records(records: Buffer, first: int, count: int, width: int, prefixes: bytes) -> list[tuple[int, int]]:
    """Numbers of prefixes (16 bytes each), and of records that begin with them, in the order of the prefixes.

    ``count`` records of ``width`` bytes lie in ``records`` from byte ``first`` on; raises ValueError if they do not.
    """
    return _kernels.find_records(records, first, count, width, prefixes)

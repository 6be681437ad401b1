"""Digests of content: BLAKE3 under a key, cut to 128 bits, a 4 KiB block.

Under a key that a guest does not know, nobody can make two blocks that meet; 128 bits keep chance out.
"""

import hashlib
from typing import Final

from typing_extensions import Buffer

from novacron.content import _kernels

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 16
ROOT_BYTES: Final = 16


def digest_blocks(data: Buffer, key: bytes) -> bytes:
    """16 bytes for each 4 KiB of ``data``; raises ValueError when it is not a whole number of blocks."""
    return _kernels.digest_blocks(data, key)


def root_digest(digests: Buffer, key: bytes) -> bytes:
    """One digest of many, in their order: two sides whose roots are equal hold the same content."""
    return hashlib.blake2b(digests, digest_size=ROOT_BYTES, key=key).digest()

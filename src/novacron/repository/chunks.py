"""Chunks: pieces of a stream, each known by its content.

A chunk's id is BLAKE3 under the repository's key, whole. A chunk of zeros has no id: it is not stored.
"""

from typing import Final

import blake3
from typing_extensions import Buffer

from novacron.content.codec import decode, encode
from novacron.content.errors import MalformedContentError
from novacron.core.units import KIB
from novacron.repository.errors import DamagedError

MAX_CHUNK_BYTES: Final = 256 * KIB
ID_BYTES: Final = 32
LEVEL: Final = 1  # of zstd


def chunk_id(chunk: Buffer, key: bytes) -> bytes:
    """32 bytes."""
    return blake3.blake3(chunk, key=key).digest()


def pack_chunk(chunk: Buffer, identity: bytes, key: bytes) -> bytes:
    """Its frame (``content.codec``), unpacked and hashed again: what memory or compression broke is never stored."""
    frame = encode(chunk, LEVEL)
    unpack_chunk(frame, identity, key)
    return frame


def unpack_chunk(frame: Buffer, identity: bytes, key: bytes) -> bytes:
    """The chunk; raises DamagedError when it is not the one of this id."""
    try:
        chunk = decode(frame, MAX_CHUNK_BYTES)
    except MalformedContentError as error:
        raise DamagedError(f"chunk {identity.hex()[:16]} cannot be unpacked: {error.cause}") from error
    if chunk_id(chunk, key) != identity:
        raise DamagedError(f"chunk {identity.hex()[:16]} is corrupt: its content is not that of its id")
    return chunk

"""A batch of pages or blocks as the body of a frame. docs/batches.md specifies it in bytes.

batch = u8 version, u32 little-endian length of the ops frame, ops frame,
        u32 length of the literals frame, literals frame, deltas frame (to the end)
"""

import struct
from dataclasses import dataclass
from typing import Final

from typing_extensions import Buffer

from novacron.content.codec import HEADER, decode, encode
from novacron.content.encoded import Encoded
from novacron.content.errors import MalformedContentError

VERSION: Final = 1
MAX_SECTION_BYTES: Final = 16 << 20
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch ready to be sent, and the bytes of its three parts on the wire."""

    body: bytes
    ops_bytes: int
    literal_bytes: int
    delta_bytes: int


def pack_batch(encoded: Encoded, level: int) -> Packed:
    """Compress each part by itself at zstd ``level``."""
    ops, literals, deltas = (encode(part, level) for part in (encoded.ops, encoded.literals, encoded.deltas))
    body = b"".join((bytes([VERSION]), _LENGTH.pack(len(ops)), ops, _LENGTH.pack(len(literals)), literals, deltas))
    return Packed(body, len(ops), len(literals) - HEADER.size, len(deltas) - HEADER.size)


def unpack_batch(body: Buffer) -> Encoded:
    """The parts of a batch (without counts); raises MalformedContentError before memory is taken."""
    view = memoryview(body)
    if not view.nbytes or view[0] != VERSION:
        raise MalformedContentError("a batch of another version")
    ops_frame, rest = _part(view[1:])
    literals_frame, deltas_frame = _part(rest)
    ops, literals, deltas = (decode(part, MAX_SECTION_BYTES) for part in (ops_frame, literals_frame, deltas_frame))
    return Encoded(ops, literals, deltas, (0, 0, 0, 0, 0, 0))


def _part(view: memoryview) -> tuple[memoryview, memoryview]:
    if view.nbytes < _LENGTH.size:
        raise MalformedContentError("a batch ends too early")
    (length,) = _LENGTH.unpack_from(view)
    if length > view.nbytes - _LENGTH.size:
        raise MalformedContentError("a batch ends too early")
    return view[_LENGTH.size : _LENGTH.size + length], view[_LENGTH.size + length :]

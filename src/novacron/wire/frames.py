"""Frames: a type, a bounded length, a body.

frame = u8 type, u32 big-endian length of the body, body
"""

import asyncio
import struct
from typing import Final

from novacron.wire.errors import ConnectionBrokenError, FrameError

HEADER: Final = struct.Struct(">BI")
MAX_BODY_BYTES: Final = 8 << 20


async def read_frame(reader: asyncio.StreamReader, *, max_bytes: int = MAX_BODY_BYTES) -> tuple[int, bytes]:
    """The next frame; raises FrameError before memory is taken for a body that is too large, ConnectionBrokenError."""
    try:
        kind, length = HEADER.unpack(await reader.readexactly(HEADER.size))
        if length > max_bytes:
            raise FrameError(f"a frame of {length} bytes was announced, at most {max_bytes} may be")
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError, OSError) as error:
        raise ConnectionBrokenError(f"the other side went away: {error}") from error


def frame_header(kind: int, length: int) -> bytes:
    """What goes before a body; raises FrameError for one that no reader would take."""
    if length > MAX_BODY_BYTES:
        raise FrameError(f"a frame of {length} bytes cannot be sent, at most {MAX_BODY_BYTES} may be")
    return HEADER.pack(kind, length)

"""Compressed frames: a tag that says how, the raw length, the payload; raw when compression does not pay.

frame = u8 codec (0 raw, 1 zstd), u32 little-endian raw length, payload
"""

import struct
import threading
from typing import Final

import zstandard
from typing_extensions import Buffer

from novacron.content.errors import MalformedContentError

RAW: Final = 0
ZSTD: Final = 1
HEADER: Final = struct.Struct("<BI")
_local = threading.local()


def encode(data: Buffer, level: int) -> bytes:
    """A frame of ``data``, compressed at zstd ``level`` (negative levels are faster); level 0 keeps it raw."""
    raw = memoryview(data)
    if level and raw.nbytes:
        packed = _compressor(level).compress(raw)
        if len(packed) < raw.nbytes:
            return HEADER.pack(ZSTD, raw.nbytes) + packed
    return HEADER.pack(RAW, raw.nbytes) + raw.tobytes()


def decode(frame: Buffer, max_bytes: int) -> bytes:
    """The content of one frame of at most ``max_bytes``; raises MalformedContentError before memory is taken."""
    view = memoryview(frame)
    if view.nbytes < HEADER.size:
        raise MalformedContentError("a compressed frame ends within its header")
    codec, length = HEADER.unpack_from(view)
    payload = view[HEADER.size :]
    if length > max_bytes:
        raise MalformedContentError(f"a frame of {length} bytes where at most {max_bytes} may be")
    if codec == RAW and payload.nbytes == length:
        return payload.tobytes()
    if codec != ZSTD or not length:
        raise MalformedContentError(f"a frame of codec {codec} whose length is wrong, or which is not known")
    try:
        if zstandard.frame_content_size(payload) != length:
            raise MalformedContentError("a frame whose two lengths differ")
        return _decompressor().decompress(payload, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedContentError(f"a frame that does not decompress: {error}") from error


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """Contexts are costly to make and serve one thread each."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    return compressors[level]


def _decompressor() -> zstandard.ZstdDecompressor:
    decompressor: zstandard.ZstdDecompressor = _local.__dict__.setdefault("decompressor", zstandard.ZstdDecompressor())
    return decompressor

"""The messages of the network block device protocol: fixed newstyle, structured replies, metadata contexts.

Source: the NBD project's ``doc/proto.md``. All integers are big-endian.
"""

import struct
from dataclasses import dataclass
from typing import Final

ALLOCATION: Final = "base:allocation"
HOLE: Final = 1  # flag of ALLOCATION: nothing is stored there
ZERO: Final = 2  # flag of ALLOCATION: it reads as zeros
DIRTY: Final = 1  # flag of a dirty bitmap's context

MAX_REQUEST_BYTES: Final = 32 << 20
MAX_EXTENTS_ASKED: Final = 1 << 30  # bytes of the disk, in one request
MAX_OPTION_BYTES: Final = 1 << 16
MAX_CONTEXTS: Final = 64

GREETING: Final = struct.Struct(">8s8sH")
OPTION: Final = struct.Struct(">8sII")
OPTION_REPLY: Final = struct.Struct(">QIII")
REQUEST: Final = struct.Struct(">IHHQQI")
STRUCTURED: Final = struct.Struct(">IHHQI")
SIMPLE: Final = struct.Struct(">IIQ")

FIXED_NEWSTYLE: Final = 1
NO_ZEROES: Final = 2
HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_WRITE_ZEROES = 1, 2, 4, 64
OPT_GO, OPT_STRUCTURED, OPT_SET_META = 7, 8, 10
REP_ACK, REP_INFO, REP_META = 1, 3, 4
REP_ERROR: Final = 1 << 31
REPLY_MAGIC: Final = 0x3E889045565A9
SIMPLE_MAGIC: Final = 0x67446698
STRUCTURED_MAGIC: Final = 0x668E33EF
REQUEST_MAGIC: Final = 0x25609513
READ, WRITE, DISCONNECT, FLUSH, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 6, 7
DONE: Final = 1  # flag of the last chunk of a structured reply
CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR = 1, 2, 5, 1 << 15


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes from ``offset`` on share ``flags``, whose meaning the context gives."""

    offset: int
    length: int
    flags: int

"""How a post-copy ends: what the source's QEMU says last, and what it hears then on the way back of the connection.

Format: QEMU's ``migration/savevm.c`` and ``migration/migration.c`` of 7.2; integers are big-endian.
"""

import struct
from typing import Final

MESSAGE: Final = struct.Struct(">HH")  # type, length of what follows
BITMAP: Final = 5
RESUMED: Final = 6
HAS_EVERYTHING: Final = MESSAGE.pack(1, 4) + bytes(4)  # QEMU closes then: whatever it had not said is never said
TAIL_BYTES: Final = 6
_FOOTER: Final = 0x7E  # of a section, whose number follows it in 4 bytes
_END: Final = 0


def said_everything(tail: bytes) -> bool:
    """Whether these last ``TAIL_BYTES`` may be the end of the stream: of the RAM's section, and of everything."""
    return len(tail) == TAIL_BYTES and tail[0] == _FOOTER and tail[-1] == _END

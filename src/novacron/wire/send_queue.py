"""What the kernel says of a TCP connection that sends: is it the link that holds it back, or the other side?"""

import socket
import struct
import time
from typing import Final

INFO_BYTES: Final = 192
_NOT_SENT: Final = struct.Struct("=I")  # of struct tcp_info in linux/tcp.h, since Linux 4.10
_BUSY: Final = struct.Struct("=2Q")  # microseconds with something to send; those of them that the receiver had no room
NOT_SENT_AT, BUSY_AT = 144, 168
JUDGED_EVERY_S: Final = 0.1  # the kernel counts in steps of some milliseconds
MOSTLY: Final = 0.5


class SendQueue:
    """One socket's queue, which holds little that is not yet under way (TCP_NOTSENT_LOWAT)."""

    def __init__(self, raw: socket.socket | None) -> None:
        self._raw = raw
        self._judged_at = 0.0
        self._busy_us = self._no_room_us = 0
        self._receiver_is_slow = False

    def waits_for_link(self) -> bool:
        """Whether bytes wait here that the receiver would take; False of a connection that is closed."""
        try:
            info = self._raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES) if self._raw else b""
        except OSError:
            return False
        if len(info) < BUSY_AT + _BUSY.size:  # a kernel that does not say
            return False
        self._judge(*_BUSY.unpack_from(info, BUSY_AT))
        (not_sent,) = _NOT_SENT.unpack_from(info, NOT_SENT_AT)
        return not_sent > 0 and not self._receiver_is_slow

    def _judge(self, busy_us: int, no_room_us: int) -> None:
        now = time.monotonic()
        if now - self._judged_at < JUDGED_EVERY_S or busy_us == self._busy_us:
            return
        lately = (no_room_us - self._no_room_us) / (busy_us - self._busy_us)
        self._receiver_is_slow = lately > MOSTLY
        self._judged_at, self._busy_us, self._no_room_us = now, busy_us, no_room_us

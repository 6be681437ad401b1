"""Guest memory to measure with: noise, text, numbers, repetition and emptiness, in the shares of the demo guest's."""

import random
import struct
from typing import Final

from novacron.core.units import PAGE_BYTES

KINDS: Final = 8
CHANGES: Final = 8  # of a page that is dirty again: places of eight bytes each
_WORDS: Final = [
    b"machine ",
    b"memory ",
    b"the ",
    b"page ",
    b"of ",
    b"a ",
    b"migrate ",
    b"cluster ",
    b"node\n",
    b"disk ",
]
_NUMBERS: Final = struct.Struct("<512Q")


def like_memory(pages: int, seed: int) -> bytes:
    """``pages`` pages, no two of them alike."""
    draw = random.Random(seed)  # noqa: S311 - content, no secret
    return b"".join(_page(number, draw) for number in range(pages))


def dirtied(memory: bytes, seed: int) -> bytes:
    """The same, every page changed in a few places."""
    draw = random.Random(seed)  # noqa: S311 - content, no secret
    changed = bytearray(memory)
    for page in range(0, len(memory), PAGE_BYTES):
        for _ in range(CHANGES):
            at = page + draw.randrange(PAGE_BYTES // 8) * 8
            changed[at : at + 8] = draw.randbytes(8)
    return bytes(changed)


def _page(number: int, draw: random.Random) -> bytes:
    head = struct.pack("<Q", number + 1)
    match number % KINDS:
        case 0 | 1:
            body = draw.randbytes(PAGE_BYTES)
        case 2 | 3 | 4:
            body = b" ".join(draw.choices(_WORDS, k=PAGE_BYTES // 2))
        case 5:
            first = draw.randrange(100_000)
            body = _NUMBERS.pack(*range(first, first + 512 * 24, 24))
        case 6:
            body = bytes([number // KINDS % 16 + 1]) * PAGE_BYTES
        case _:
            body = b"".join(draw.randbytes(8) + bytes(248) for _ in range(PAGE_BYTES // 256))
    return head + body[: PAGE_BYTES - len(head)]

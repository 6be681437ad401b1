"""What a destination does with a batch of blocks, on a disk that is a bytearray."""

from novacron.content.blocks import Copy, decode_blocks
from novacron.content.encoded import Encoded


def write_all(disk: bytearray, told: Encoded) -> None:
    """One operation after the other."""
    for offset, content in decode_blocks(told, len(disk)):
        if isinstance(content, Copy):
            data = bytes(disk[content.source : content.source + content.length])
        else:
            data = bytes(content) if isinstance(content, int) else content
        disk[offset : offset + len(data)] = data

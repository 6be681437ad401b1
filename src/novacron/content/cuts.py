"""Where chunks begin and end in a stream: in 4 KiB blocks. docs/repository.md specifies both ways."""

from typing_extensions import Buffer

from novacron.content import _kernels

Cut = tuple[int, int]  # first block, number of blocks: at most 64; of a stream's last block there may be less


def cut_fixed(data: Buffer) -> list[Cut]:
    """Every 64 blocks (256 KiB); a chunk of zeros is left out."""
    return _kernels.cut_chunks(data, None)


def cut_by_content(data: Buffer, key: bytes) -> list[Cut]:
    """After blocks that ``key`` (32 bytes) chooses: 4 to 64 blocks, 16 on average; blocks of zeros are left out."""
    return _kernels.cut_chunks(data, key)

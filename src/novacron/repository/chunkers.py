"""Chunkers: how a repository cuts streams, chosen when it is made. docs/repository.md specifies both.

``fixed-256k``    every 256 KiB: fast, and little is read again where little has changed
``content-64k``   where the content says so, about every 64 KiB: finds what lies elsewhere in another disk
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import Buffer

from novacron.content.cuts import Cut, cut_by_content, cut_fixed
from novacron.repository.chunks import MAX_CHUNK_BYTES
from novacron.repository.regions import REGION_BYTES


@dataclass(frozen=True, slots=True)
class Chunker:
    """``unit_bytes``: what is stored begins and ends at its multiples, or at the stream's end."""

    name: str
    unit_bytes: int
    cut: Callable[[Buffer, bytes], list[Cut]]  # of content that begins at a unit, by the cut key


FIXED: Final = Chunker("fixed-256k", MAX_CHUNK_BYTES, lambda data, _: cut_fixed(data))
BY_CONTENT: Final = Chunker("content-64k", REGION_BYTES, cut_by_content)
CHUNKERS: Final[Mapping[str, Chunker]] = {chunker.name: chunker for chunker in (FIXED, BY_CONTENT)}

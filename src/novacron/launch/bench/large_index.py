"""A repository that seems to hold very many chunks: index and pages are real, of packs there are only names."""

import random
import secrets
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from novacron.core.units import KIB, PAGE_BYTES
from novacron.repository.chunks import ID_BYTES
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.packs import ENTRY, path
from novacron.repository.regions import REGION_BYTES, Part, make_page
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer

CHUNK_BYTES: Final = 64 * KIB
PACK_CHUNKS: Final = 512
SEGMENT_PACKS: Final = 512
NAME: Final = "large"


def fill(root: Path, cache: Path, key: bytes, chunks: int, seed: int) -> None:
    """One manifest of so many chunks, in the repository in the folder ``root``.

    In a process of its own, so that nothing of it is in the memory of this one.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        other.submit(_fill, root, cache, key, chunks, seed).result()


def _fill(root: Path, cache: Path, key: bytes, chunks: int, seed: int) -> None:
    repository = Repository.open(FolderStore(root), Secret.file(key), cache)
    draw = random.Random(seed)  # noqa: S311 - content, no secret
    writer = Writer(repository)
    pages, packs, gathered = bytearray(), dict[str, bytes](), list[bytes]()
    per_region = REGION_BYTES // CHUNK_BYTES
    for _ in range(chunks // per_region):
        ids = [draw.randbytes(ID_BYTES) for _ in range(per_region)]
        spans = (Part(at * CHUNK_BYTES, (at + 1) * CHUNK_BYTES, identity) for at, identity in enumerate(ids))
        pages += writer.store_page(make_page(spans))
        gathered += ids
        if len(gathered) >= PACK_CHUNKS:
            packs[_pack(root)] = b"".join(ENTRY.pack(one, at * PAGE_BYTES, 1) for at, one in enumerate(gathered))
            gathered = []
        if len(packs) == SEGMENT_PACKS:
            repository.index.add(packs)
            packs = {}
    packs[_pack(root)] = b"".join(ENTRY.pack(one, at * PAGE_BYTES, 1) for at, one in enumerate(gathered))
    repository.index.add(packs)
    stream = Stream("disk", len(pages) // ID_BYTES * REGION_BYTES, bytes(pages))
    writer.commit(NAME, Manifest(0.0, repository.chunker.name, (stream,)))


def _pack(root: Path) -> str:
    """An empty one."""
    name = secrets.token_hex(32)
    file = root / path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return name

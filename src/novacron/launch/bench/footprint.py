"""How much memory of their own the nodes hold while a guest moves: files that can be evicted are not counted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from novacron.core.units import KIB

LOOK_EVERY_S: Final = 0.05
FIELD: Final = "RssAnon:"


class Footprint:
    """Most that one of the processes has held so far, bytes of anonymous memory; ``look`` looks again."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.peak_bytes = 0

    def look(self) -> None:
        """Raises FileNotFoundError when one of the processes has ended."""
        self.peak_bytes = max(self.peak_bytes, *map(anonymous_bytes, self._pids))


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process that no file stands behind, bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next(int(words[1]) * KIB for words in lines if words[0] == FIELD)


@asynccontextmanager
async def footprint(*pids: int) -> AsyncIterator[Footprint]:
    """Watch the processes while the context lasts."""
    found = Footprint(pids)
    found.look()
    watching = asyncio.create_task(_watch(found))
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(found: Footprint) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        found.look()

"""Two sites of real processes, something of which is destroyed at a named point of a migration."""

import asyncio
import os
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from novacron.launch.chaos.sites import POLICY, SETTLED_S, Sites
from novacron.launch.chaos.strike import find, kill
from novacron.launch.lab.link import Link

HALTING = (sys.executable, str(Path(__file__).with_name("halting.py")))
LINK = Link(rate_bytes_s=125_000_000, delay_ms=1, seed=7)
ONCE = msgspec.structs.replace(POLICY, retry_for_ms=0)  # the tests look at one attempt
OUTAGE_S = 8.0  # longer than a channel's heartbeat lives


@asynccontextmanager
async def halting_sites(directory: Path, guest, accelerator: Path):
    """Sites whose nodes stand still at the points of ``halting``."""
    halt = directory / "halt"
    halt.mkdir()
    os.environ["NC_HALT"] = str(halt)
    for name in ("a", "b"):
        (directory / name / "node").mkdir(parents=True)
        (directory / name / "node" / "accelerator.json").write_bytes(accelerator.read_bytes())
    async with Sites.running(LINK, directory, guest, program=HALTING) as sites:
        yield sites


async def wreck(sites: Sites, point: str, victim: str, strategy: str = "stream") -> str:
    """Migrate; at ``point`` destroy ``victim``; the migration's outcome once everything is back."""
    halt = Path(os.environ["NC_HALT"]) / point
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(halt))
        listener.listen()
        listener.setblocking(False)
        migration_id = await sites.migrate(msgspec.structs.replace(ONCE, strategy=strategy))
        async with asyncio.timeout(SETTLED_S):
            halted, _ = await asyncio.get_running_loop().sock_accept(listener)
        halt.unlink()
    if victim == "link":
        async with sites.lab.cut():
            halted.close()
            await asyncio.sleep(OUTAGE_S)
    else:
        with halted:
            if (process := find(sites, victim)) is not None:
                await kill(process)
    (attempt,) = await sites.ended(migration_id)
    return attempt.outcome

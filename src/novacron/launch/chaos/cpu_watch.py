"""Watches that a VM never runs twice, by the CPU time that its QEMUs use: nobody's word is taken for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from novacron.launch.chaos.errors import TwoRunError
from novacron.launch.chaos.qemus import living
from novacron.launch.demo.site import DemoSite

LOOK_S: Final = 0.4
AT_WORK: Final = 0.05  # of a look's time


@asynccontextmanager
async def never_two(*sites: DemoSite) -> AsyncIterator[None]:
    """Watch the virtual CPUs of every QEMU: two may not be at work in two looks, one after the other.

    Raises TwoRunError at the end. A look is long enough for a guest at work to use several ticks of CPU time, and for
    work that QEMU itself does in that thread while the guest is stopped to be less; on a busy host it takes longer.
    """
    found: list[str] = []
    watching = asyncio.create_task(_watch(sites, found))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        if found:
            raise TwoRunError(found[0])


async def _watch(sites: tuple[DemoSite, ...], found: list[str]) -> None:
    before: dict[int, float] = {}
    doubled, looked_at = 0, time.monotonic()
    while True:
        since, looked_at = looked_at, time.monotonic()
        enough_s = AT_WORK * max(LOOK_S, looked_at - since)
        processes = [qemu.process for site in sites for qemu in living(site)]
        now = {process.pid: process.thread_cpu_s("CPU") for process in processes}
        working = [pid for pid, used in now.items() if used - before.get(pid, used) >= enough_s]
        doubled = doubled + 1 if len(working) > 1 else 0
        if doubled > 1:
            found.append(f"QEMUs {working} ran at the same time")
        before = now
        await asyncio.sleep(LOOK_S)

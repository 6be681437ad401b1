"""Watches that a VM never runs twice, by the CPU time that its QEMUs use: nobody's word is taken for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from novacron.launch.chaos.errors import TwoRunError
from novacron.launch.chaos.qemus import living
from novacron.launch.demo.site import DemoSite

LOOK_S: Final = 0.4
AT_WORK_S: Final = 0.02  # of CPU time, in one look


@asynccontextmanager
async def never_two(*sites: DemoSite) -> AsyncIterator[None]:
    """Watch the virtual CPUs of every QEMU: two may not be at work in two looks, one after the other.

    Raises TwoRunError at the end. A look is long enough for a guest at work to use several ticks of CPU time, and for
    work that QEMU itself does in that thread while the guest is stopped to be less.
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
    doubled = 0
    while True:
        processes = [qemu.process for site in sites for qemu in living(site)]
        now = {process.pid: process.thread_cpu_s("CPU") for process in processes}
        working = [pid for pid, used in now.items() if used - before.get(pid, used) >= AT_WORK_S]
        doubled = doubled + 1 if len(working) > 1 else 0
        if doubled > 1:
            found.append(f"QEMUs {working} ran at the same time")
        before = now
        await asyncio.sleep(LOOK_S)

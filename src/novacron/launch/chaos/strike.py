"""Does to a process or to the link what was drawn."""

import asyncio
import signal
from typing import Protocol

from novacron.hypervisor.qemu.process import Process
from novacron.launch.chaos.draw import CUT, KILL, STOP, Draw
from novacron.launch.chaos.qemus import living
from novacron.launch.chaos.sites import Sites


class Victim(Protocol):
    """Whatever takes signals: a part of a site, or a QEMU."""

    def signal(self, number: int) -> None:
        """Harmless when it is gone."""
        ...


async def strike(sites: Sites, drawn: Draw) -> bool:
    """Do it, and mend what is for a while only; whether there was anything to strike."""
    if drawn.deed == CUT:
        async with sites.lab.cut():
            await asyncio.sleep(drawn.lasts_s)
        return True
    victim = find(sites, drawn.victim)
    if victim is None:
        return False
    if drawn.deed == KILL:
        await kill(victim)
    elif drawn.deed == STOP:
        await _stop(victim, drawn.lasts_s)
    return True


def find(sites: Sites, name: str) -> Victim | None:
    """``source-node``, ``target-qemu``, …: the VM leaves the source. None when there is none."""
    side, _, part = name.partition("-")
    site = {"source": sites.home, "target": sites.away}.get(side)
    if site is None:
        return None
    if part == "qemu":
        return next((qemu.process for qemu in reversed(living(site))), None)
    return {"node": site.node, "controller": site.controller}[part]


async def kill(victim: Victim) -> None:
    """A QEMU has ended on return; a part of a site is started again by itself."""
    victim.signal(signal.SIGKILL)
    if isinstance(victim, Process):
        await victim.wait()


async def _stop(victim: Victim, lasts_s: float) -> None:
    victim.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(lasts_s)
    finally:
        victim.signal(signal.SIGCONT)

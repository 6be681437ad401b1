"""A guest whose file systems are held for a moment, by its agent; never for longer, whatever goes on here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine
from novacron.hypervisor.errors import HypervisorError

AT_MOST_S: Final = 5.0
log = structlog.get_logger()


@dataclass(slots=True)
class Freeze:
    """``held`` as long as they are; ``note`` says why they are not, where there is an agent."""

    held: bool = False
    note: str = ""
    frozen_ms: float = 0.0


@asynccontextmanager
async def frozen(machine: Machine, clock: Clock) -> AsyncIterator[Freeze]:
    """The body is run in any case, and has not been frozen for all of it where ``held`` is False at its end."""
    if not await machine.guest_ping():
        yield Freeze()
        return
    freeze, began = Freeze(), clock.monotonic()
    watchdog = asyncio.create_task(_thaw_later(machine, clock, freeze))
    try:
        freeze.held = await machine.freeze()
        if not freeze.held:
            freeze.note = "the guest's agent did not hold its file systems"
        yield freeze
    finally:
        watchdog.cancel()
        await asyncio.gather(watchdog, return_exceptions=True)
        await asyncio.shield(_thaw(machine))
        if freeze.held:
            freeze.frozen_ms = (clock.monotonic() - began) * 1000


async def _thaw_later(machine: Machine, clock: Clock, freeze: Freeze) -> None:
    await clock.sleep(AT_MOST_S)
    freeze.held, freeze.note = False, f"the guest's file systems were to be held for more than {AT_MOST_S:g} s"
    await _thaw(machine)


async def _thaw(machine: Machine) -> None:
    try:
        await machine.thaw()
    except HypervisorError as error:  # its QEMU has gone, and the guest with it
        log.warning("not_thawed", vm=machine.vm_id, cause=error.cause)

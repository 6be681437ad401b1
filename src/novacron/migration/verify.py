"""Is a guest alive? Its agent says so, or its virtual CPUs or disks do something."""

from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine

LOOK_EVERY_S: Final = 0.1
LOOK_FOR_S: Final = 10.0


async def sign_of_life(machine: Machine, clock: Clock) -> str:
    """What gave it away (``disk``, ``cpu`` or ``agent``); empty when nothing did within ``LOOK_FOR_S``."""
    cpu_before, disk_before = await machine.vital_signs()
    deadline = clock.monotonic() + LOOK_FOR_S
    while clock.monotonic() < deadline:
        cpu, disk = await machine.vital_signs()
        if disk > disk_before:
            return "disk"
        if cpu > cpu_before:
            return "cpu"
        await clock.sleep(LOOK_EVERY_S)
    return "agent" if await machine.guest_ping() else ""

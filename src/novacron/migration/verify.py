"""Has a guest arrived well? It gives a sign of life, its agent answers, a probe of the node's operator succeeds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from novacron.core.clock import Clock
from novacron.hypervisor.driver import Machine
from novacron.hypervisor.errors import QemuDiedError
from novacron.protocol.migration import GuestCheck, Verdict

LOOK_EVERY_S: Final = 0.1
PROBE_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Tried:
    """One run of a probe: whether it ended with exit code 0, and the last line that it said."""

    succeeded: bool
    word: str


Probe = Callable[[float], Awaitable[Tried]]  # given the seconds that are left


async def verify(machine: Machine, clock: Clock, check: GuestCheck, probe: Probe | None) -> Verdict:
    """Look until everything that ``check`` asks for was seen, or its time is over."""
    deadline = clock.monotonic() + check.within_ms / 1000
    within = f"{check.within_ms / 1000:g} s"
    try:
        sign = await sign_of_life(machine, clock, deadline)
        if not sign:
            return Verdict(alive=False, word=f"it gave no sign of life within {within}", lifeless=True)
        if check.verify == "agent" and not await _agent(machine, clock, deadline):
            return Verdict(alive=False, word=f"its agent did not answer within {within}")
    except QemuDiedError:
        return Verdict(alive=False, word="its QEMU has died", lifeless=True)
    if probe is not None:
        return await _probed(check.probe, probe, clock, deadline)
    return Verdict(alive=True, word="agent" if check.verify == "agent" else sign)


async def sign_of_life(machine: Machine, clock: Clock, deadline: float) -> str:
    """What gave it away (``disk``, ``cpu`` or ``agent``); empty when nothing did until ``deadline``."""
    cpu_before, disk_before = await machine.vital_signs()
    while clock.monotonic() < deadline:
        cpu, disk = await machine.vital_signs()
        if disk > disk_before:
            return "disk"
        if cpu > cpu_before:
            return "cpu"
        await clock.sleep(LOOK_EVERY_S)
    return "agent" if await machine.guest_ping() else ""


async def _agent(machine: Machine, clock: Clock, deadline: float) -> bool:
    while not (answered := await machine.guest_ping()) and clock.monotonic() < deadline:
        await clock.sleep(LOOK_EVERY_S)
    return answered


async def _probed(name: str, probe: Probe, clock: Clock, deadline: float) -> Verdict:
    """Again and again: what a guest serves may need a moment to be found at its new place."""
    while True:
        tried = await probe(max(LOOK_EVERY_S, deadline - clock.monotonic()))
        if tried.succeeded:
            return Verdict(alive=True, word=f"{name}: {tried.word}" if tried.word else name)
        if clock.monotonic() + PROBE_EVERY_S >= deadline:
            return Verdict(alive=False, word=f"the probe {name} did not succeed: {tried.word}")
        await clock.sleep(PROBE_EVERY_S)

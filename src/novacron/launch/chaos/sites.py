"""Two sites of real processes, and a VM that goes back and forth between them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from websockets.exceptions import WebSocketException

from novacron.cli.kinds import JOBS, MIGRATIONS, NODES, VMS, at
from novacron.core.errors import NovaCronError
from novacron.core.ids import MigrationId
from novacron.core.units import MIB
from novacron.launch.chaos.errors import StuckError
from novacron.launch.demo.console import workload_console
from novacron.launch.demo.journey import VM, bring_images, join, settle_in
from novacron.launch.demo.site import NOVACRON, DemoSite
from novacron.launch.guest.build import GuestFiles
from novacron.launch.guest.workloads import HEAP, kernel_arguments
from novacron.launch.lab.lab import Lab, open_lab
from novacron.launch.lab.link import Link
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Migration, Vm
from novacron.protocol.rest import MigrateRequest
from novacron.workflow.journal import ENDED

NAMES: Final = ("a", "b")
MEMORY_BYTES: Final = 128 * MIB
SMALL: Final = "novacron.hot=2048 novacron.cold=8192 novacron.rate=3000"  # the guest's workload: the last word counts
POLICY: Final = MigrationPolicy(verify_window_ms=0, on_unverified="keep")  # where it is, it is looked for
SETTLED_S: Final = 60.0
LOOK_S: Final = 0.1

T = TypeVar("T")


class Sites:
    """Use ``running``. The VM is at ``home``; ``away`` is where it goes next."""

    def __init__(self, lab: Lab, home: DemoSite, away: DemoSite) -> None:
        self.lab = lab
        self.home = home
        self.away = away

    @classmethod
    @asynccontextmanager
    async def running(
        cls, link: Link, directory: Path, guest: GuestFiles, *, program: Sequence[str] = NOVACRON
    ) -> AsyncIterator[Self]:
        """Two clusters that have joined, in a lab of their own; the small demo guest is at work in the first."""
        async with AsyncExitStack() as stack:
            lab = await stack.enter_async_context(open_lab(link, NAMES))
            sites = [DemoSite.running(name, lab, directory, program=program) for name in NAMES]
            a, b = await asyncio.gather(*map(stack.enter_async_context, sites))
            await join(a, b)
            await bring_images(a, guest)
            await settle_in(a, f"{kernel_arguments(HEAP, link.seed)} {SMALL}", memory_bytes=MEMORY_BYTES)
            yield cls(lab, a, b)

    async def migrate(self, policy: MigrationPolicy = POLICY) -> MigrationId:
        """Begin to move the VM away from home."""
        request = MigrateRequest(VM, self.away.name, policy)
        begun = await asyncio.to_thread(self.home.client.post, "/migrations", Migration, request)
        return begun.value.id

    async def ended(self, migration_id: MigrationId) -> list[Migration]:
        """Every attempt at it, once all is quiet at both sites; ``home`` is where the VM is then."""
        attempts = [await self._closed(migration_id)]
        while (following := attempts[-1].retried_by) is not None:
            attempts.append(await self._closed(following))
        self.home, self.away = await until(self._where, "exactly one site has the VM")
        await until(lambda: all(map(_quiet, (self.home, self.away))), "both nodes serve, and no migration is under way")
        return attempts

    async def until_running(self) -> dict[str, Any]:
        """The workload's next status line, once there is one."""
        began = time.monotonic()
        while time.monotonic() - began < SETTLED_S:
            await until(lambda: state_of(self.home) == "running", "the VM runs")
            if (line := await self._status()) is not None:
                return line
        raise StuckError(f"the guest says nothing at {self.home.name}")

    async def bring_up(self) -> int | None:
        """Start the VM when it is off: how many records the guest found on its disk. None when it runs."""
        async with asyncio.timeout(SETTLED_S):
            while await until(self._steady_state, "the VM runs or is off") == "running":
                if await self._status() is not None:
                    return None
        await until(lambda: _known(lambda: self.home.client.post(at(VMS, VM, "start"), Vm)), "the VM may start")
        kept: int = (await self.until_running())["kept"]
        return kept

    async def verdict(self, tag: str) -> dict[str, int]:
        """What the guest finds wrong, at the one place where it runs."""
        await self.until_running()
        async with workload_console(self.home.url, self.home.token, VM) as console:
            found = await console.check(tag)
        return {name: found[name] for name in ("errors", "lost", "doubled")}

    async def _closed(self, migration_id: MigrationId) -> Migration:
        """One attempt, as the controller that began it has it in the end."""
        while True:
            found = await until(
                lambda: _known(lambda: self.home.client.get(MIGRATIONS, migration_id).value), "its controller answers"
            )
            if found.outcome and found.phase != "window" and not _job_runs(self.home, migration_id):
                return found
            await asyncio.sleep(LOOK_S)

    async def _status(self) -> dict[str, Any] | None:
        """A status line of the workload, or None when its console ends before it says one."""
        try:
            async with workload_console(self.home.url, self.home.token, VM) as console:
                return await console.wait_for("t")
        except (NovaCronError, WebSocketException, OSError):  # its node is coming back, or its QEMU has gone
            return None

    def _where(self) -> tuple[DemoSite, DemoSite] | None:
        """The site that has the VM, and the other one; never both."""
        at_home, at_away = _known(lambda: self.home.client.list(VMS)), _known(lambda: self.away.client.list(VMS))
        if at_home is None or at_away is None or len(at_home) + len(at_away) != 1:
            return None
        return (self.home, self.away) if at_home else (self.away, self.home)

    def _steady_state(self) -> str:
        state = state_of(self.home)
        return state if state in {"running", "stopped"} else ""


async def until(condition: Callable[[], T | None], what: str, timeout_s: float = SETTLED_S) -> T:
    """What ``condition`` gives, once it gives something; it may block. Raises StuckError."""
    deadline = time.monotonic() + timeout_s
    while not (found := await asyncio.to_thread(condition)):
        if time.monotonic() > deadline:
            raise StuckError(f"not within {timeout_s:.0f} s: {what}")
        await asyncio.sleep(LOOK_S)
    return found


def state_of(site: DemoSite) -> str:
    """Of the VM as this site's controller has it; empty when it has none."""
    found = [vm.value for vm in _known(lambda: site.client.list(VMS)) or [] if vm.value.name == VM]
    return found[0].state if found else ""


def _quiet(site: DemoSite) -> bool:
    """Whether its node serves, and no migration is under way in its records."""
    nodes, moves = _known(lambda: site.client.list(NODES)), _known(lambda: site.client.list(MIGRATIONS))
    if nodes is None or moves is None:
        return False
    return all(node.value.state == "ready" for node in nodes) and all(move.value.outcome for move in moves)


def _job_runs(site: DemoSite, migration_id: MigrationId) -> bool:
    jobs = _known(lambda: site.client.list(JOBS))
    return jobs is None or any(j.value.state not in ENDED for j in jobs if migration_id in j.value.subject)


def _known(ask: Callable[[], T]) -> T | None:
    """An answer, or None while the controller is away."""
    try:
        return ask()
    except NovaCronError:
        return None

"""Two sites of real processes in a lab, something of which is destroyed in the middle of a migration."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from websockets.exceptions import WebSocketException

from novacron.cli.kinds import JOBS, MIGRATIONS, NODES, VMS
from novacron.core.errors import NovaCronError
from novacron.core.units import MIB
from novacron.hypervisor.qemu.process import Process
from novacron.launch.demo.console import workload_console
from novacron.launch.demo.journey import VM, join
from novacron.launch.demo.site import DemoSite
from novacron.launch.lab.lab import open_lab
from novacron.launch.lab.link import Link
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.resources import Image, Migration, Vm
from novacron.protocol.rest import DiskRequest, MigrateRequest, VmRequest
from novacron.workflow.journal import ENDED
from support.pair import QUIET

HALTING = (sys.executable, str(Path(__file__).with_name("halting.py")))
POLICY = MigrationPolicy(verify_window_ms=0, retry_for_ms=0)
OUTAGE_S = 8.0  # longer than a channel's heartbeat lives
SETTLED_S = 60.0
LOOK_S = 0.4
AT_WORK_S = 0.02  # of CPU time, in one look


class Sites:
    """Use ``running``. The VM is at ``home``; ``away`` is where it goes next."""

    def __init__(self, lab, home: DemoSite, away: DemoSite, directory: Path) -> None:
        self.lab = lab
        self.home = home
        self.away = away
        self._halt = directory / "halt"

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path, guest, accelerator: Path):
        (directory / "halt").mkdir()
        os.environ["NC_HALT"] = str(directory / "halt")
        link = Link(rate_bytes_s=125_000_000, delay_ms=1)
        async with AsyncExitStack() as stack:
            lab = await stack.enter_async_context(open_lab(link, ("a", "b")))
            for name in ("a", "b"):
                (directory / name / "node").mkdir(parents=True)
                (directory / name / "node" / "accelerator.json").write_bytes(accelerator.read_bytes())
            sites = [DemoSite.running(name, lab, directory, program=HALTING) for name in ("a", "b")]
            a, b = await asyncio.gather(*map(stack.enter_async_context, sites))
            await join(a, b)
            self = cls(lab, a, b, directory)
            await self.settle_in(guest)
            yield self

    async def settle_in(self, guest) -> None:
        """The small demo guest, at work."""
        for name, path, image_format in (
            ("kernel", guest.kernel, "blob"),
            ("initrd", guest.initrd, "blob"),
            ("disk", guest.disk, "qcow2"),
        ):
            data = path.read_bytes()
            given = {"name": name, "format": image_format}
            await asyncio.to_thread(self.home.client.upload, "/images", Image, given, iter([data]), len(data))
        disks = (DiskRequest(image="disk"),)
        request = VmRequest(
            name=VM, memory_bytes=128 * MIB, kernel="kernel", initrd="initrd", append=QUIET, disks=disks
        )
        await asyncio.to_thread(self.home.client.post, "/vms", Vm, request)
        await self.until_running(self.home)

    async def until_running(self, site: DemoSite) -> dict:
        """The workload's next status line, once there is one."""
        async with asyncio.timeout(SETTLED_S):
            while True:
                await until(lambda: _state(site) == "running")
                if (line := await self._status(site)) is not None:
                    return line

    async def _status(self, site: DemoSite) -> dict | None:
        """A status line of the workload, or None when its console ends before it says one."""
        try:
            async with workload_console(site.url, site.token, VM) as console:
                return await console.wait_for("t")
        except (NovaCronError, WebSocketException, OSError):  # its node is coming back, or its QEMU has gone
            return None

    async def wreck(self, point: str, victim: str) -> str:
        """Migrate; at ``point`` destroy ``victim``; the migration's outcome once everything is back."""
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(str(self._halt / point))
            listener.listen()
            listener.setblocking(False)
            request = MigrateRequest(VM, self.away.name, POLICY)
            begun = await asyncio.to_thread(self.home.client.post, "/migrations", Migration, request)
            async with asyncio.timeout(SETTLED_S):
                halted, _ = await asyncio.get_running_loop().sock_accept(listener)
            (self._halt / point).unlink()
        with halted:
            mend = await self._destroy(victim)
        await mend()
        return await self._outcome(begun.value.id)

    async def _destroy(self, victim: str):
        side, _, part = victim.partition("-")
        site = {"source": self.home, "target": self.away}.get(side)
        if victim == "link":
            return await self._cut()
        if part == "qemu":
            for process in instances(site)[-1:]:
                process.signal(signal.SIGKILL)
                await process.wait()
        else:
            os.kill(getattr(site, part).pid, signal.SIGKILL)
        return _nothing

    async def _cut(self):
        async def link(state: str) -> None:
            command = self.lab.wrap(self.home.name, ["ip", "link", "set", "link0", state])
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0

        async def mend() -> None:
            await asyncio.sleep(OUTAGE_S)
            await link("up")

        await link("down")
        return mend

    async def _outcome(self, migration_id: str) -> str:
        """Of the migration, from the controller that began it."""
        found = await until(lambda: _known(lambda: self.home.client.get(MIGRATIONS, migration_id).value), SETTLED_S)
        while not found.outcome or found.phase == "window" or _job_runs(self.home, migration_id):
            await asyncio.sleep(0.1)
            found = await until(lambda: _known(lambda: self.home.client.get(MIGRATIONS, migration_id).value), SETTLED_S)
        self.home, self.away = await until(self._where)
        await until(lambda: all(map(_whole, (self.home, self.away))))
        return found.outcome

    def _where(self) -> tuple[DemoSite, DemoSite] | None:
        """The site that has the VM, and the other one; never both."""
        sites = [site for site in (self.home, self.away) if _state(site)]
        if len(sites) != 1:
            return None
        return sites[0], self.away if sites[0] is self.home else self.home

    async def bring_up(self) -> int | None:
        """Start the VM when it is off: how many records the guest found on its disk. None when it runs."""
        async with asyncio.timeout(SETTLED_S):
            while True:
                state = await until(lambda: _state(self.home))
                if state == "running" and await self._status(self.home) is not None:
                    return None
                if state == "stopped":
                    break
        await until(lambda: _known(lambda: self.home.client.post(f"{VMS.path}/{VM}/start", Vm)))
        return (await self.until_running(self.home))["kept"]

    async def verdict(self, tag: str) -> dict:
        """What the guest finds, at the one place where it runs."""
        await self.until_running(self.home)
        async with workload_console(self.home.url, self.home.token, VM) as console:
            found = await console.check(tag)
        return {name: found[name] for name in ("errors", "lost", "doubled")}


async def _nothing() -> None:
    """What was killed comes back by itself."""


def _whole(site: DemoSite) -> bool:
    """Whether its node serves, and no migration is under way in its records."""
    nodes, moves = _known(lambda: site.client.list(NODES)) or [], _known(lambda: site.client.list(MIGRATIONS)) or []
    return all(node.value.state == "ready" for node in nodes) and all(move.value.outcome for move in moves)


def _job_runs(site: DemoSite, migration_id: str) -> bool:
    jobs = _known(lambda: site.client.list(JOBS)) or []
    return any(j.value.state not in ENDED for j in jobs if migration_id in j.value.subject)


def _known(ask):
    """An answer, or None while the controller is away."""
    try:
        return ask()
    except NovaCronError:
        return None


def _state(site: DemoSite) -> str:
    """Of the VM as this site's controller has it; empty when it has none."""
    found = [vm.value for vm in _known(lambda: site.client.list(VMS)) or [] if vm.value.name == VM]
    return found[0].state if found else ""


async def until(condition, timeout_s: float = SETTLED_S):
    """What ``condition`` gives, once it gives something; it may block."""
    async with asyncio.timeout(timeout_s):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110 - other processes change it
            await asyncio.sleep(0.1)
        return found


def instances(site: DemoSite) -> list[Process]:
    """Living QEMUs of a site, the youngest last."""
    records = sorted((site.directory / "node" / "vms").glob("*/instances/*.json"), key=lambda p: p.stat().st_mtime)
    found = []
    for record in records:
        with contextlib.suppress(FileNotFoundError):
            facts = json.loads(record.read_text())
            found.append(Process(facts["pid"], facts["started"]))
    return [process for process in found if process.alive]


class TwoRunError(Exception):
    """Two copies of one VM ran at the same time."""


@asynccontextmanager
async def never_two(sites: Sites):
    """Watch the virtual CPUs of every QEMU: two may not be at work in two looks, one after the other.

    A look is long enough for a guest at work to use several ticks of CPU time, and for work that QEMU itself does in
    that thread while the guest is stopped to be less.
    """
    found: list[str] = []

    async def watch() -> None:
        before: dict[int, float] = {}
        doubled = 0
        while True:
            now = {p.pid: p.thread_cpu_s("CPU") for site in (sites.home, sites.away) for p in instances(site)}
            working = [pid for pid, used in now.items() if used - before.get(pid, used) >= AT_WORK_S]
            doubled = doubled + 1 if len(working) > 1 else 0
            if doubled > 1:
                found.append(f"QEMUs {working} ran at the same time")
            before = now
            await asyncio.sleep(LOOK_S)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if found:
        raise TwoRunError(found[0])

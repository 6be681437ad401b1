"""Two whole clusters in one process: controllers and agents that speak over real TLS, with real guests."""

import asyncio
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from novacron.agent import membership
from novacron.agent.agent import Agent
from novacron.agent.operator import Operator
from novacron.control.controller import Controller
from novacron.control.jobs import get_job
from novacron.control.kinds import MIGRATIONS, NODES, VMS
from novacron.core.clock import SystemClock
from novacron.core.units import MIB
from novacron.database.database import Database
from novacron.hypervisor.memory.driver import MemoryDriver, MemoryHost
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.launch.guest.console import WorkloadConsole
from novacron.protocol.resources import Job, Migration, Vm
from novacron.protocol.rest import DiskRequest, MigrateRequest, VmRequest
from novacron.wire.credentials import Credentials
from novacron.workflow.journal import ENDED
from support.pair import QUIET

CLOCK = SystemClock()


def bind(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


async def as_bound(port: int) -> str:
    return f"127.0.0.1:{port}"


class ClusterUnderTest:
    """One controller and its nodes; each can be stopped and started again at its address."""

    def __init__(self, name: str, directory: Path, ram: Path, make_driver, front) -> None:
        self.name = name
        self.directory = directory
        self._ram = ram
        self._make_driver = make_driver
        self._front = front
        self._stack = AsyncExitStack()
        self._port = 0
        self._node_ports: dict[str, int] = {}
        self.controller: Controller
        self.agents: dict[str, tuple[Agent, asyncio.Task]] = {}

    async def start_controller(self) -> Controller:
        listener = bind(self._port)
        self._port = listener.getsockname()[1]
        running = Controller.running(
            data_dir=self.directory / "controller",
            name=self.name,
            listener=listener,
            clock=CLOCK,
            advertise=await self._front(self._port),
        )
        self.controller = await self._stack.enter_async_context(running)
        return self.controller

    async def stop_controller(self) -> None:
        await self._stack.aclose()

    async def start_node(self, name: str) -> Agent:
        data = self.directory / name
        data.mkdir(exist_ok=True)
        listener = bind(self._node_ports.get(name, 0))
        port = self._node_ports[name] = listener.getsockname()[1]
        address = await self._front(port)
        member = membership.joined(data)
        if member is None:
            text = (await self.controller.nodes.invite(60)).invitation
            member = await membership.join(data, text, name=name, address=address, clock=CLOCK)
        credentials = Credentials.load(membership.credentials_dir(data), CLOCK)
        agent = Agent(
            node_id=member.node_id,
            data_dir=data,
            make_driver=partial(
                self._make_driver, data_dir=data, run_dir=data / "r", ram_dir=self._ram / f"{self.name}-{name}"
            ),
            credentials=credentials,
            clock=CLOCK,
            operator=Operator(
                probes_dir=self.probes_dir(name), hooks_dir=self.hooks_dir(name), node=name, cluster=self.name
            ),
        )
        await agent.start(listener, address)
        attending = asyncio.create_task(membership.attend(member, credentials, data, address, CLOCK))
        self.agents[name] = agent, attending
        await self.until(NODES, name, lambda node: node.state == "ready")
        return agent

    def probes_dir(self, node: str) -> Path:
        """Where a node's operator would put probes."""
        return self.directory / f"{node}-probes"

    def hooks_dir(self, node: str) -> Path:
        """The same of hooks."""
        return self.directory / f"{node}-hooks"

    async def stop_node(self, name: str) -> None:
        agent, attending = self.agents.pop(name)
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        await agent.stop()

    async def close(self) -> None:
        for name, (agent, _) in tuple(self.agents.items()):
            for vm_id in agent._driver.vms():
                for machine in await agent._driver.adopt(vm_id):
                    await machine.kill()
            await self.stop_node(name)
        await self.stop_controller()

    @property
    def database(self) -> Database:
        return self.controller.database

    async def until(self, kind, reference: str, condition, timeout_s: float = 60):
        """The resource once ``condition`` holds of it (None: once it is not there)."""
        async with asyncio.timeout(timeout_s):
            while True:
                waiting = asyncio.ensure_future(self.database.changed())
                await asyncio.sleep(0)
                found = await self.database.read(lambda tx: kind.find(tx, reference))
                value = found.value if found else None
                if (value is None and condition is None) or (value is not None and condition and condition(value)):
                    waiting.cancel()
                    return value
                await asyncio.wait([waiting], timeout=0.2)
                waiting.cancel()

    async def job(self, job_id: str, timeout_s: float = 60) -> Job:
        """A job once it has ended."""
        async with asyncio.timeout(timeout_s):
            while True:
                job = await self.database.read(lambda tx: get_job(tx, job_id))
                if job.state in ENDED:
                    return job
                await asyncio.sleep(0.02)

    async def add_images(self, guest_files) -> None:
        for name, path, image_format in (
            ("kernel", guest_files.kernel, "blob"),
            ("initrd", guest_files.initrd, "blob"),
            ("disk", guest_files.disk, "qcow2"),
        ):
            await self.controller.images.add(name, image_format, _chunks(path))

    async def boot(self, name: str = "demo", **more) -> Vm:
        """Create the small demo guest and see it work."""
        request = VmRequest(
            name=name,
            memory_bytes=128 * MIB,
            kernel="kernel",
            initrd="initrd",
            append=QUIET,
            disks=(DiskRequest(image="disk"),),
        )
        vm, job_id = await self.controller.vms.create(msgspec.structs.replace(request, **more))
        job = await self.job(job_id)
        assert job.state == "done", job
        async with self.console(name) as guest:
            await guest.wait_for("t")
        return (await self.database.read(lambda tx: VMS.get(tx, vm.id))).value

    async def boot_small(self, name: str = "demo", **more) -> Vm:
        """The same on a driver in memory."""
        small = VmRequest(name=name, memory_bytes=16 * MIB, disks=(DiskRequest(4 * MIB),))
        more = {**msgspec.structs.asdict(small), **more}
        del more["name"]
        return await self.boot(name, **more)

    async def migrate(self, vm: str, to: str, policy) -> Migration:
        return await self.controller.migrations.start(MigrateRequest(vm, to, policy))

    async def ended(self, migration_id: str, timeout_s: float = 90) -> Migration:
        return await self.until(MIGRATIONS, migration_id, lambda m: m.outcome, timeout_s)

    @asynccontextmanager
    async def console(self, name: str):
        async with self.controller.vms.console(name) as both:
            reader = asyncio.StreamReader()

            class Writer:
                def __init__(self) -> None:
                    self.waiting = b""

                def write(self, data: bytes) -> None:
                    self.waiting += data

                async def drain(self) -> None:
                    data, self.waiting = self.waiting, b""
                    await both.send(data)

            async def pump() -> None:
                try:
                    while data := await both.receive():
                        reader.feed_data(data)
                finally:
                    reader.feed_eof()

            pumping = asyncio.create_task(pump())
            try:
                yield WorkloadConsole(reader, Writer())
            finally:
                pumping.cancel()
                await asyncio.gather(pumping, return_exceptions=True)


def put_program(folder: Path, name: str, script: str) -> Path:
    """A program of a node's operator."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


async def _chunks(path: Path):
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, MIB):
            yield data


def on_qemu(accelerator_file: Path):
    """Drivers of real VMs, the boot test's result given to them."""

    def make(image_path, *, data_dir: Path, run_dir: Path, ram_dir: Path) -> QemuDriver:
        shutil.copyfile(accelerator_file, data_dir / "accelerator.json")
        return QemuDriver(image_path, data_dir=data_dir, run_dir=run_dir, ram_dir=ram_dir)

    return make


def in_memory(**given: MemoryHost):
    """Drivers of VMs in memory; a node started again finds those of its host. ``given`` are hosts by cluster."""
    hosts: dict[Path, MemoryHost] = {}

    def make(image_path, *, data_dir: Path, run_dir: Path, ram_dir: Path) -> MemoryDriver:
        cluster = data_dir.parent.name.replace("-", "_")
        host = hosts.setdefault(data_dir, given.get(cluster) or MemoryHost())
        return MemoryDriver(image_path, host=host, run_dir=run_dir, ram_dir=ram_dir)

    return make


@asynccontextmanager
async def cluster(name: str, directory: Path, make_driver, nodes=("node-1",), front=as_bound):
    """A cluster with its nodes joined; ``front`` gives the address at which others reach a port."""
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))
    under_test = ClusterUnderTest(name, directory / name, ram, make_driver, front)
    under_test.directory.mkdir()
    try:
        await under_test.start_controller()
        for node in nodes:
            await under_test.start_node(node)
        yield under_test
    finally:
        await under_test.close()
        shutil.rmtree(ram, ignore_errors=True)


@asynccontextmanager
async def two_clusters(directory: Path, make_driver, nodes=("node-1",), front=as_bound):
    """``site-a`` and ``site-b``, joined."""
    async with (
        cluster("site-a", directory, make_driver, nodes, front) as a,
        cluster("site-b", directory, make_driver, nodes, front) as b,
    ):
        text = (await a.controller.peers.invite(60)).invitation
        await b.controller.peers.join(text)
        yield a, b

"""Two real agents of one cluster, and a controller's calls to them."""

import asyncio
import shutil
import socket
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from novacron.agent.agent import Agent
from novacron.core.clock import SystemClock
from novacron.core.ids import ImageId, MigrationId, NodeId, VmId
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.launch.guest.console import WorkloadConsole
from novacron.protocol.migration import (
    DIRECT,
    IncomingOrder,
    IncomingReady,
    MigrationPolicy,
    MigrationRef,
    MigrationReport,
    OpenRequest,
    OutgoingOffer,
    OutgoingOrder,
)
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite, Nothing, VmCreate, VmRef, VmReport
from novacron.wire.authority import ClusterAuthority, csr_for, new_key
from novacron.wire.client import Client
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId
from support.pair import small_spec

CLOCK = SystemClock()
VM = VmId("vm-00000000000000000001")
KERNEL, INITRD, DISK = (ImageId(f"image-{n:020x}") for n in range(3))


def spec():
    """The small demo guest, from images that have come over the wire."""
    import msgspec

    small = small_spec()
    boot = msgspec.structs.replace(small.boot, kernel=KERNEL, initrd=INITRD)
    disks = tuple(msgspec.structs.replace(disk, image=DISK) for disk in small.disks)
    return msgspec.structs.replace(small, boot=boot, disks=disks)


class Nodes:
    """Agents by name, on this host; every one can be stopped and started again at its address."""

    def __init__(self, directory: Path, ram: Path, accelerator_file: Path, driver=QemuDriver) -> None:
        self._driver = driver
        self._directory = directory
        self._ram = ram
        self._accelerator_file = accelerator_file
        self._authority = ClusterAuthority.create(directory / "ca", "site-a", CLOCK)
        self._credentials: dict[str, Credentials] = {}
        self.agents: dict[str, Agent] = {}
        self.addresses: dict[str, str] = {}
        self.clients: dict[str, Client] = {}

    def issue(self, kind: str, name: str = "") -> Credentials:
        key = new_key()
        certificate = self._authority.issue(csr_for(key), SpiffeId("site-a", kind, name))
        return Credentials(key, certificate, {"site-a": self._authority.root_pem}, CLOCK)

    async def start(self, name: str) -> Client:
        data = self._directory / name
        data.mkdir(exist_ok=True)
        shutil.copyfile(self._accelerator_file, data / "accelerator.json")
        credentials = self._credentials.setdefault(name, self.issue("node", name))
        agent = Agent(
            node_id=NodeId(name),
            data_dir=data,
            make_driver=partial(self._driver, data_dir=data, run_dir=data / "r", ram_dir=self._ram / name),
            credentials=credentials,
            clock=CLOCK,
        )
        port = int(self.addresses.get(name, ":0").rpartition(":")[2])
        listener = socket.create_server(("127.0.0.1", port))
        try:
            self.agents[name] = await agent.start(listener)
        except BaseException:
            listener.close()
            raise
        self.addresses[name] = agent.address
        if name not in self.clients:
            self.clients[name] = Client.known(agent.address, self.issue("controller"), expect=None)
        return self.clients[name]

    async def stop(self, name: str) -> None:
        await self.agents.pop(name).stop()

    async def close(self) -> None:
        for client in self.clients.values():
            await client.close()
        for agent in tuple(self.agents.values()):
            for vm_id in agent._driver.vms():
                for machine in await agent._driver.adopt(vm_id):
                    await machine.kill()
            await agent.stop()

    async def load_images(self, name: str, guest_files) -> None:
        """Ship the demo guest's files to a node."""
        import hashlib

        for image, path, image_format in (
            (KERNEL, guest_files.kernel, "blob"),
            (INITRD, guest_files.initrd, "blob"),
            (DISK, guest_files.disk, "qcow2"),
        ):
            data = path.read_bytes()
            ref = ImageRef(image, image_format, len(data), hashlib.sha256(data).hexdigest())
            for at in range(0, len(data), 1 << 20):
                part = ImageWrite(ref, at, data[at : at + (1 << 20)])
                here = await self.clients[name].call("image.write", part, ImagePresence)
            assert here.complete

    async def place_images(self, name: str, guest_files) -> None:
        """The same files, laid into the node's folder directly: faster, for tests that are about something else."""
        import msgspec

        directory = self._directory / name / "images"
        directory.mkdir(parents=True, exist_ok=True)
        for image, path, image_format in (
            (KERNEL, guest_files.kernel, "blob"),
            (INITRD, guest_files.initrd, "blob"),
            (DISK, guest_files.disk, "qcow2"),
        ):
            (directory / image).symlink_to(path)
            ref = ImageRef(image, image_format, path.stat().st_size, "")
            (directory / f"{image}.json").write_bytes(msgspec.json.encode(ref))

    async def boot(self, name: str) -> None:
        """Create and start the guest, and see it work."""
        client = self.clients[name]
        await client.call("vm.create", VmCreate(VM, spec(), 1), VmReport)
        await client.call("vm.start", VmRef(VM), VmReport)
        async with self.console(name) as guest:
            await guest.wait_for("t")

    @asynccontextmanager
    async def console(self, name: str, vm_id: VmId = VM):
        """The guest's console through the agent."""
        async with self.clients[name].duplex("vm.console", VmRef(vm_id)) as both:
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

    async def order(self, source: str, target: str, number: int, policy: MigrationPolicy | None = None) -> MigrationRef:
        """Open, prepare, run: what a controller's workflow does."""
        migration = MigrationId(f"migration-{number:020x}")
        offer = await self.clients[source].call("migration.open", OpenRequest(migration, VM), OutgoingOffer)
        incoming = IncomingOrder(
            migration,
            VM,
            offer.epoch,
            offer.spec,
            offer.source_node,
            offer.source_address,
            offer.known_state,
            offer.running,
            direct=policy is not None and policy.strategy in DIRECT,
            post_copy=policy is not None and policy.strategy == "postcopy",
        )
        ready = await self.clients[target].call("migration.prepare", incoming, IncomingReady)
        order = OutgoingOrder(migration, VM, offer.epoch, ready, policy or MigrationPolicy())
        await self.clients[source].call("migration.run", order, MigrationReport)
        return MigrationRef(migration, VM)

    async def until(self, name: str, ref: MigrationRef, *states: str, timeout_s: float = 60) -> MigrationReport:
        """Look until a node says one of ``states`` of a migration."""
        async with asyncio.timeout(timeout_s):
            while True:
                report = await self.clients[name].call("migration.report", ref, MigrationReport)
                if report.state in states:
                    return report
                await asyncio.sleep(0.02)

    async def until_sent(self, name: str, ref: MigrationRef, wire_bytes: int) -> MigrationReport:
        """Look until a source has sent so much."""
        async with asyncio.timeout(60):
            while True:
                report = await self.clients[name].call("migration.report", ref, MigrationReport)
                if report.progress.wire_bytes >= wire_bytes:
                    return report
                await asyncio.sleep(0.02)

    async def describe(self, name: str):
        from novacron.protocol.node import NodeDescription

        return await self.clients[name].call("node.describe", Nothing(), NodeDescription)


@asynccontextmanager
async def two_nodes(directory: Path, guest_files, accelerator_file: Path):
    """Agents ``a`` and ``b``, with the demo guest's files at both."""
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))
    nodes = Nodes(directory, ram, accelerator_file)
    try:
        for name in ("a", "b"):
            await nodes.start(name)
            await nodes.place_images(name, guest_files)
        yield nodes
    finally:
        await nodes.close()
        shutil.rmtree(ram, ignore_errors=True)

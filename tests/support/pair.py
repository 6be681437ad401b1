"""Two nodes that migrate to each other over real TLS on loopback, without agents."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from novacron.core.clock import SystemClock
from novacron.core.ids import MigrationId, VmId
from novacron.core.units import GIB, MIB
from novacron.hypervisor.driver import Machine
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.hypervisor.spec import DiskSpec, KernelBoot, VmSpec
from novacron.launch.guest.console import WorkloadConsole
from novacron.migration.destination import Destination, Incoming
from novacron.migration.meter import Meter
from novacron.migration.recovery import take_back
from novacron.migration.source import Outgoing, Source
from novacron.migration.verify import verify
from novacron.protocol.migration import DIRECT, GuestCheck, MigrationPolicy, MigrationSummary
from novacron.wire.authority import ClusterAuthority, csr_for, new_key
from novacron.wire.channel import open_channel
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId
from novacron.wire.server import Server

VM = VmId("vm-00000000000000000001")
CLOCK = SystemClock()
QUIET = "console=ttyS0 quiet panic=-1 nokaslr novacron.seed=7 novacron.hot=2048 novacron.cold=8192 novacron.rate=3000"


def small_spec() -> VmSpec:
    """The demo guest, small enough for many tests."""
    return VmSpec(
        name="demo",
        vcpus=1,
        memory_bytes=128 * MIB,
        boot=KernelBoot("kernel", "initrd", QUIET),
        disks=(DiskSpec("disk0", GIB, "disk"),),
    )


@asynccontextmanager
async def console(machine: Machine):
    reader, writer = await asyncio.open_unix_connection(await machine.console())
    try:
        yield WorkloadConsole(reader, writer)
    finally:
        writer.close()


@dataclass
class Arrival:
    """What one migration left behind."""

    machine: Machine
    summary: MigrationSummary
    source: Source
    ram: Path
    journal: list[str] = field(default_factory=list)
    note: str = ""  # the meter's last


class Pair:
    """Two nodes, ``a`` and ``b``."""

    def __init__(self, make_driver, directory: Path) -> None:
        self.drivers: dict[str, QemuDriver] = {"a": make_driver("a"), "b": make_driver("b")}
        self.directory = directory
        self._authority = ClusterAuthority.create(directory / "ca", "site-a", CLOCK)

    async def boot(self, spec: VmSpec) -> Machine:
        """A VM at ``a``, at work."""
        await self.drivers["a"].create(VM, spec)
        machine = await self.drivers["a"].start(VM)
        async with console(machine) as guest:
            await guest.wait_for("t")
        return machine

    def credentials(self, name: str) -> Credentials:
        key, identity = new_key(), SpiffeId("site-a", "node", name)
        trust = {"site-a": self._authority.root_pem}
        return Credentials(key, self._authority.issue(csr_for(key), identity), trust, CLOCK)

    async def move(
        self,
        machine: Machine,
        to: str,
        number: int,
        *,
        ram_image: Path | None = None,
        old_image: Path | None = None,
        known_state: str = "",
        donor: VmId | None = None,
        policy: MigrationPolicy | None = None,
    ) -> Arrival:
        """One migration, from its offer to the guest's first sign of life."""
        policy = policy or MigrationPolicy()
        direct = policy.strategy in DIRECT
        driver, migration = self.drivers[to], MigrationId(f"mig-{number}")
        ram = driver.ram_file(VM, migration)
        await driver.reserve_ram(ram, machine.spec.memory_bytes)
        target = await driver.prepare_incoming(
            VM, machine.spec, ram_path=ram, overlay=bool(known_state), donor=donor, shared=direct
        )
        journal: list[str] = []
        incoming = Incoming(
            migration,
            VM,
            number,
            target,
            target.run_dir / "in",
            old_image,
            bool(known_state),
            disks_filled=donor is not None,
            direct=direct,
            post_copy=policy.strategy == "postcopy",
        )
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def receive(_peer, _session, channel) -> None:
            destination = Destination(
                incoming,
                channel,
                CLOCK,
                ready=lambda: _note(journal, "ready"),
                run=lambda _: _note(journal, "run"),
                checkpoint=lambda _ram, _pieces: _note(journal, "checkpoint"),
                verify=lambda: verify(target, CLOCK, GuestCheck(), None),
                whole=lambda: _note(journal, "whole"),
            )
            try:
                await destination.run()
                ended.set_result(None)
            except Exception as error:
                ended.set_exception(error)
                raise
            finally:
                if destination.line is not None:
                    await destination.line.close()

        server = Server(self.credentials(to))
        server.channels(receive)
        await server.start("127.0.0.1", 0)
        outgoing = Outgoing(
            migration,
            VM,
            number,
            machine,
            True,
            policy,
            machine.run_dir / "out",
            ram_image,
            known_state,
            machine.run_dir,
            peer_host="127.0.0.1",
        )
        try:
            channel = await open_channel(
                server.address,
                self.credentials("source"),
                SpiffeId("site-a", "node", to),
                migration,
                rate_bytes_s=outgoing.policy.bandwidth_bytes_s,
            )
            async with channel:
                meter = Meter(CLOCK)
                source = Source(outgoing, channel, meter, CLOCK, lambda: _note(journal, "commit"))
                summary = await source.run()
            await ended
        finally:
            await server.close()
            if ended.done():
                ended.exception()
        await driver.settle_incoming(target)
        return Arrival(target, summary, source, ram, journal, meter.note)

    async def take_back(self, machine: Machine) -> None:
        """What an agent does with a VM whose migration was given up."""
        await take_back(machine, CLOCK, running=True)
        await machine.end_exports()
        names = [disk.id for disk in machine.spec.disks]
        for bitmap in await machine.bitmaps_like("novacron-"):
            await machine.drop_tracking(names, bitmap)


async def _note(journal: list[str], what: str) -> None:
    journal.append(what)

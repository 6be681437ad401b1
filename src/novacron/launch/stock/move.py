"""A move by stock QEMU, in the steps that libvirt takes for it.

Mirror the disk over NBD, migrate the RAM, end the mirror while the guest stands still, hand over.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from msgspec import Struct

from novacron.hypervisor.driver import MachineEvent
from novacron.hypervisor.errors import QemuDiedError, QmpError
from novacron.launch.lab.lab import Lab
from novacron.launch.stock.contender import Contender
from novacron.launch.stock.errors import StockFailedError
from novacron.launch.stock.instance import StockInstance

SWITCHOVER_S: Final = 120.0
SECOND_ROUND: Final = 2
CAPABILITIES: Final = ("events", "return-path", "late-block-activate")
MAX_BANDWIDTH: Final = 1 << 40  # the link limits, not QEMU


class StockFigures(Struct, frozen=True):
    """What a move came to. ``converged`` false: given up after ``total_ms``, the guest runs on where it was."""

    converged: bool
    total_ms: int
    downtime_ms: int
    rounds: int
    post_copy_bytes: int = 0  # of RAM that followed the guest


class Ports(Struct, frozen=True):
    """Where the destination listens (``listen``) and where the source finds it, for RAM and for the disk."""

    ram_listen: str
    ram_advertise: str
    disk_listen: str
    disk_advertise: str

    @classmethod
    def of(cls, lab: Lab, site: str) -> "Ports":
        """Of a destination in the lab."""
        ram, disk = (lab.listen(site, part) for part in ("stock-ram", "stock-disk"))
        return cls(ram[0], ram[1] or ram[0], disk[0], disk[1] or disk[0])


class StockMove:
    """One move of a running guest with one disk."""

    def __init__(
        self, source: StockInstance, target: StockInstance, contender: Contender, ports: Ports, *, disk: str
    ) -> None:
        self._source = source
        self._target = target
        self._contender = contender
        self._ports = ports
        self._disk = disk

    async def run(self, *, downtime_ms: int, give_up_s: float) -> StockFigures:
        """Move it; gives up when QEMU has not stopped the guest ``give_up_s`` after the beginning."""
        began = time.monotonic()
        async with self._source.events() as said, self._target.events() as heard:
            try:
                async with asyncio.timeout(give_up_s):
                    await self._mirror(said)
                    await self._prepare(downtime_ms)
                    stopped = await self._rounds(said)
            except TimeoutError:
                ram = await self._ram()
                await self._give_up()
                return StockFigures(
                    converged=False, total_ms=_since(began), downtime_ms=0, rounds=ram.get("dirty-sync-count", 0)
                )
            try:
                async with asyncio.timeout(SWITCHOVER_S):
                    resumed = await self._switch_over(said, heard)
            except TimeoutError:
                raise StockFailedError(f"the hand-over of stock QEMU took more than {SWITCHOVER_S:.0f} s") from None
            total_ms = _since(began)
            ram = await self._ram()
        return StockFigures(
            converged=True,
            total_ms=total_ms,
            downtime_ms=round((resumed - stopped) * 1000),
            rounds=ram["dirty-sync-count"],
            post_copy_bytes=ram["postcopy-bytes"],
        )

    async def _mirror(self, said: AsyncIterator[MachineEvent]) -> None:
        """The whole disk, then every write as it comes."""
        listen, advertise = _inet(self._ports.disk_listen), _inet(self._ports.disk_advertise)
        await self._target.qmp("nbd-server-start", addr={"type": "inet", "data": listen})
        await self._target.qmp(
            "block-export-add", type="nbd", id="mirror", node_name=self._disk, name=self._disk, writable=True
        )
        await self._source.qmp(
            "blockdev-add",
            driver="nbd",
            node_name="far",
            server={"type": "inet", **advertise},
            export=self._disk,
        )
        await self._source.qmp(
            "blockdev-mirror",
            job_id="mirror",
            device=self._disk,
            target="far",
            sync="full",
            copy_mode="write-blocking",  # in the default mode a guest that writes all the time keeps it from ready
        )
        await _until(said, "BLOCK_JOB_READY")

    async def _prepare(self, downtime_ms: int) -> None:
        """Equal settings on both sides, then the destination listens."""
        common = (*CAPABILITIES, *self._contender.capabilities)
        for instance, names in ((self._source, (*common, "pause-before-switchover")), (self._target, common)):
            wanted = [{"capability": name, "state": True} for name in names]
            await instance.qmp("migrate-set-capabilities", capabilities=wanted)
            if self._contender.parameters:
                await instance.qmp("migrate-set-parameters", **self._contender.parameters)
        await self._source.qmp("migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH, downtime_limit=downtime_ms)
        await self._target.qmp("migrate-incoming", uri=f"tcp:{self._ports.ram_listen}")

    async def _rounds(self, said: AsyncIterator[MachineEvent]) -> float:
        """RAM until QEMU has stopped the guest; the instant of that (monotonic)."""
        await self._source.qmp("migrate", uri=f"tcp:{self._ports.ram_advertise}")
        stopped = 0.0
        async for event in said:
            _refuse_failure(event)
            if event.name == "STOP":
                stopped = time.monotonic()
            if self._contender.post_copy and event.name == "MIGRATION_PASS" and event.data["pass"] == SECOND_ROUND:
                await self._source.qmp("migrate-start-postcopy")
            if event.name == "MIGRATION" and event.data["status"] == "pre-switchover":
                return stopped
        raise QemuDiedError("stock QEMU went away before it stopped the guest")

    async def _switch_over(self, said: AsyncIterator[MachineEvent], heard: AsyncIterator[MachineEvent]) -> float:
        """The guest stands still: the mirror ends complete, QEMU sends the rest; when the guest ran again (monotonic).

        With post-copy the rest follows the guest: a destination that is told to go on does when it can.
        """
        await self._source.qmp("block-job-cancel", device="mirror")
        await _until(said, "BLOCK_JOB_COMPLETED")
        await self._target.qmp("nbd-server-stop")
        await self._source.qmp("migrate-continue", state="pre-switchover")
        if not self._contender.post_copy:
            await _until(said, "MIGRATION", status="completed")
        await self._target.qmp("cont")
        await _until(heard, "RESUME")
        resumed = time.monotonic()
        if self._contender.post_copy:
            await _until(said, "MIGRATION", status="completed")
        return resumed

    async def _ram(self) -> dict[str, int]:
        """QEMU's own figures; none before the RAM's turn."""
        figures: dict[str, int] = (await self._source.qmp("query-migrate")).get("ram", {})
        return figures

    async def _give_up(self) -> None:
        """The guest goes on at the source."""
        await self._source.qmp("migrate_cancel")
        with contextlib.suppress(QmpError):  # the mirror may not have begun
            await self._source.qmp("block-job-cancel", device="mirror", force=True)


async def _until(said: AsyncIterator[MachineEvent], name: str, **data: Any) -> None:
    async for event in said:
        _refuse_failure(event)
        if event.name == name and data.items() <= event.data.items():
            return
    raise QemuDiedError(f"stock QEMU went away before {name}")


def _refuse_failure(event: MachineEvent) -> None:
    if event.name == "MIGRATION" and event.data["status"] == "failed":
        raise StockFailedError("stock QEMU's migration failed")
    if event.name == "BLOCK_JOB_ERROR" or (event.name == "BLOCK_JOB_COMPLETED" and "error" in event.data):
        raise StockFailedError(f"stock QEMU's mirror failed: {event.data.get('error', event.data)}")


def _inet(address: str) -> dict[str, str]:
    host, _, port = address.rpartition(":")
    return {"host": host, "port": port}


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

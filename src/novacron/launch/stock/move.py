"""A move by stock QEMU, in the steps that libvirt takes for it.

Mirror the disk over NBD, migrate the RAM, end the mirror while the guest stands still, hand over.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from msgspec import Struct

from novacron.hypervisor.driver import MachineEvent
from novacron.hypervisor.errors import QemuDiedError
from novacron.launch.lab.lab import Lab
from novacron.launch.stock.contender import Contender
from novacron.launch.stock.errors import StockFailedError
from novacron.launch.stock.instance import StockInstance

MIRROR_S: Final = 300.0
SWITCHOVER_S: Final = 120.0
CAPABILITIES: Final = ("events", "return-path", "late-block-activate")
MAX_BANDWIDTH: Final = 1 << 40  # the link limits, not QEMU


class StockFigures(Struct, frozen=True):
    """What a move came to. ``converged`` false: given up after ``total_ms``, the guest runs on where it was."""

    converged: bool
    total_ms: int
    downtime_ms: int
    rounds: int


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
        """Move it; gives up when the RAM's rounds have not converged ``give_up_s`` after they began."""
        began = time.monotonic()
        async with self._source.events() as said:
            await self._mirror(said)
            await self._prepare(downtime_ms)
            stopped = await self._rounds(said, give_up_s)
            rounds = (await self._source.qmp("query-migrate")).get("ram", {}).get("dirty-sync-count", 0)
            if stopped is None:
                await self._source.qmp("migrate_cancel")
                return StockFigures(converged=False, total_ms=_since(began), downtime_ms=0, rounds=rounds)
            async with asyncio.timeout(SWITCHOVER_S):
                await self._switch_over(said)
                await self._target.qmp("nbd-server-stop")
                await self._target.qmp("cont")
        return StockFigures(converged=True, total_ms=_since(began), downtime_ms=_since(stopped), rounds=rounds)

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
        async with asyncio.timeout(MIRROR_S):
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

    async def _rounds(self, said: AsyncIterator[MachineEvent], give_up_s: float) -> float | None:
        """RAM until QEMU has stopped the guest; the instant of that (monotonic), or None when it never came to it."""
        await self._source.qmp("migrate", uri=f"tcp:{self._ports.ram_advertise}")
        stopped = None
        try:
            async with asyncio.timeout(give_up_s):
                async for event in said:
                    if event.name == "STOP":
                        stopped = time.monotonic()
                    _refuse_failure(event)
                    if event.name == "MIGRATION" and event.data["status"] == "pre-switchover":
                        return stopped
        except TimeoutError:
            return None
        raise QemuDiedError("the source's QEMU went away")

    async def _switch_over(self, said: AsyncIterator[MachineEvent]) -> None:
        """The guest stands still: the mirror ends complete, QEMU sends the rest."""
        await self._source.qmp("block-job-cancel", device="mirror")
        await _until(said, "BLOCK_JOB_COMPLETED")
        await self._source.qmp("migrate-continue", state="pre-switchover")
        await _until(said, "MIGRATION", status="completed")


async def _until(said: AsyncIterator[MachineEvent], name: str, **data: Any) -> None:
    async for event in said:
        _refuse_failure(event)
        if event.name == name and data.items() <= event.data.items():
            return
    raise QemuDiedError(f"the source's QEMU went away before {name}")


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

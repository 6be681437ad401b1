"""The disks of a running QEMU at one instant: what a guest is about to change is copied aside before.

disk ← before (copy-before-write, to a sparse file) ← the guest's device
                before ← access (snapshot-access) ← NBD

Where the copy cannot be made, the instant is lost, and never the guest's write. The filter must be gone before the VM
moves: QEMU does not let its disks go with one.
"""

import secrets
from typing import Any, Final

from novacron.hypervisor.driver import DiskExport, MachineState
from novacron.hypervisor.qemu.machine import QemuMachine

MARKED: Final = "novacron-marked"  # what ``since`` had marked when the filters had gone in
COPY_TIMEOUT_S: Final = 20  # for one copy, while a write of the guest waits


class RunningPointInTime:
    """See ``point_in_time.PointInTime``."""

    def __init__(self, machine: QemuMachine) -> None:
        self._machine = machine
        self._disks = [disk.id for disk in machine.spec.disks]

    async def marks(self, prefix: str) -> dict[str, bool]:
        """As QEMU has them."""
        names = await self._machine.bitmaps_like(prefix)
        return {name: await self._machine.tracked(self._disks, name) for name in names}

    async def begin(self, *, since: str, onward: str) -> list[DiskExport]:
        """``onward`` begins before the filters go in, what ``since`` has is copied after: no write falls between."""
        machine = self._machine
        await machine.start_tracking(self._disks, onward, persistent=True)
        for disk in self._disks:
            await self._prepare(disk)
        await self._put_in()
        for disk in self._disks:
            await machine.qmp("blockdev-add", driver="snapshot-access", node_name=f"access-{disk}", file=_before(disk))
        if since:
            await machine.copy_tracking(self._disks, since, MARKED)
        return await machine.export_instant(self._disks, MARKED if since else "")

    async def _prepare(self, disk: str) -> None:
        """Nothing is copied until the device writes through the filter."""
        scratch = self._machine.disks[disk].with_name(f"{disk}.{secrets.token_hex(4)}.before")
        with scratch.open("xb") as file:
            file.truncate(next(one.size_bytes for one in self._machine.spec.disks if one.id == disk))
        try:
            protocol: dict[str, Any] = {"driver": "file", "filename": str(scratch)}
            await self._machine.qmp("blockdev-add", driver="raw", node_name=_scratch(disk), file=protocol)
        finally:
            scratch.unlink()  # it goes with QEMU's hold on it, whoever is killed
        await self._machine.qmp(
            "blockdev-add",
            driver="copy-before-write",
            node_name=_before(disk),
            file=disk,
            target=_scratch(disk),
            on_cbw_error="break-snapshot",
            cbw_timeout=COPY_TIMEOUT_S,
        )

    async def _put_in(self) -> None:
        """One filter goes in at an instant; with several, nothing may be written between the first and the last."""
        still = len(self._disks) > 1 and await self._machine.state() is MachineState.RUNNING
        if still:
            await self._machine.pause()
        try:
            for disk in self._disks:
                await self._drive(disk, _before(disk))
        finally:
            if still:
                await self._machine.resume()

    async def end(self) -> None:
        """Whatever is there of it goes."""
        machine = self._machine
        await machine.end_exports()
        nodes = {node["node-name"] for node in await machine.qmp("query-named-block-nodes", flat=True)}
        for disk in self._disks:
            if f"access-{disk}" in nodes:
                await machine.qmp("blockdev-del", node_name=f"access-{disk}")
            if _before(disk) in nodes:
                await self._drive(disk, disk)
                await machine.qmp("blockdev-del", node_name=_before(disk))
            if _scratch(disk) in nodes:
                await machine.qmp("blockdev-del", node_name=_scratch(disk))
        await machine.drop_tracking(self._disks, MARKED)

    async def forget(self, bitmap: str) -> None:
        """From every disk."""
        await self._machine.drop_tracking(self._disks, bitmap)

    async def _drive(self, disk: str, node: str) -> None:
        """What the guest's device writes into."""
        device = f"/machine/peripheral/dev-{disk}"
        await self._machine.qmp("qom-set", path=device, property="drive", value=node)


def _before(disk: str) -> str:
    return f"before-{disk}"


def _scratch(disk: str) -> str:
    return f"scratch-{disk}"

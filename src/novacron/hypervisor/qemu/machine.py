"""One QEMU process, spoken to over its monitors."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from novacron.core.ids import VmId
from novacron.core.units import PAGE_BYTES
from novacron.hypervisor.driver import DirectLink, DiskExport, MachineEvent, MachineState, MigrationStatus
from novacron.hypervisor.errors import QemuDiedError, QmpError, VmStateError
from novacron.hypervisor.qemu.content_destination import ContentDestination, ram_blocks
from novacron.hypervisor.qemu.folder import InstanceRecord
from novacron.hypervisor.qemu.guest_agent import GuestAgent
from novacron.hypervisor.qemu.link_key import LinkKey
from novacron.hypervisor.qemu.qmp import Qmp

MAX_MARKS: Final = 1 << 26  # of a dirty bitmap: 8 MiB of memory, each for 4 KiB of a disk of 256 GiB
MAX_BANDWIDTH: Final = 1 << 40  # the proxy paces, not QEMU
LAST_WORDS_BYTES: Final = 4096
HANGS_AFTER_S: Final = 5.0  # a monitor that does not answer a status query for so long
LOOK_EVERY_S: Final = 0.01
BROKEN: Final = frozenset({"postcopy-paused", "postcopy-recover"})
_COMING_IN: Final = frozenset({MachineState.INMIGRATE, MachineState.FINISH_MIGRATE})
ANNOUNCE: Final = {"initial": 20, "max": 1000, "rounds": 10, "step": 100}  # ms: over 5 s, since switches may be slow
_CAPABILITIES: Final = ("events", "return-path", "late-block-activate")


class QemuMachine:
    """One instance; see ``driver.Machine``."""

    def __init__(self, vm_id: VmId, record: InstanceRecord, qmp: Qmp, control: Qmp) -> None:
        self.vm_id = vm_id
        self.instance = record.instance
        self.spec = record.spec
        self.ram_path = Path(record.ram_path)
        self.run_dir = Path(record.run_dir)
        self.disks = {name: Path(path) for name, path in record.disks.items()}
        self.process = record.process()
        self._qmp = qmp
        self._control = control  # for out-of-band commands, when the first hangs
        self._sizes = {disk.id: disk.size_bytes for disk in record.spec.disks}
        self._exports: list[str] = []
        self._link_key: LinkKey | None = None

    @property
    def attached(self) -> bool:
        """Whether both monitors are open."""
        return not (self._qmp.closed or self._control.closed)

    async def qmp(self, command: str, **arguments: Any) -> Any:
        """One command of QEMU's own."""
        return await self._qmp.execute(command, **arguments)

    async def state(self) -> MachineState:
        """What it does now."""
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                return MachineState((await self.qmp("query-status"))["status"])
        except QemuDiedError:
            await self.process.wait()
            return MachineState.GONE

    async def resume(self) -> None:
        """Let the guest run; never while its state is coming in: QEMU would start it by itself later."""
        state = await self.state()
        if state in _COMING_IN:
            raise VmStateError(f"VM {self.vm_id} is {state}: it cannot run before its state is here")
        await self.qmp("cont")

    async def pause(self) -> None:
        """Hold the guest."""
        await self.qmp("stop")

    async def announce(self) -> None:
        """Reverse ARP by QEMU, from each card, beside whatever the guest says; the rounds go on by themselves."""
        if self.spec.nics:
            await self.qmp("announce-self", **ANNOUNCE)

    async def powerdown(self) -> None:
        """Press the power button."""
        await self.qmp("system_powerdown")

    async def quit(self) -> None:
        """End the instance, its disks closed in order; kill it when it does not end by itself."""
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                await self.qmp("quit")
                await self.process.wait()
        except (QemuDiedError, TimeoutError):
            await self.process.kill()
        await self.detach()

    async def kill(self) -> None:
        """End it the hard way."""
        await self.process.kill()
        await self.detach()

    async def detach(self) -> None:
        """Leave its monitors; the instance goes on."""
        await self._qmp.close()
        await self._control.close()

    async def wait_gone(self) -> None:
        """Return when the process has ended."""
        await self.process.wait()

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[MachineEvent]]:
        """Subscribe to what QEMU says by itself."""
        return self._qmp.events()

    async def last_words(self) -> str:
        """The end of its log."""
        return await asyncio.to_thread(_tail, self.run_dir / "log")

    async def vital_signs(self) -> tuple[float, int]:
        """CPU seconds of its virtual CPUs (thread times), and completed block operations."""
        stats = await self.qmp("query-blockstats")
        operations = sum(one["stats"]["rd_operations"] + one["stats"]["wr_operations"] for one in stats)
        return await asyncio.to_thread(self.process.thread_cpu_s, "CPU"), operations

    async def guest_ping(self) -> bool:
        """Ask the guest's agent whether it is there."""
        return await GuestAgent(self.run_dir / "agent").ping()

    async def freeze(self) -> bool:
        """Never asked of an agent that has not answered: a word that waits for one would be obeyed at any time."""
        return await GuestAgent(self.run_dir / "agent").freeze()

    async def thaw(self) -> None:
        """Let them be written again."""
        await GuestAgent(self.run_dir / "agent").thaw()

    async def peek(self, offsets: Sequence[int], length: int) -> list[bytes]:
        """QEMU writes each piece into a file: the RAM file is not what the guest sees once the guest has moved."""
        path = self.run_dir / f"peek-{secrets.token_hex(4)}"
        pieces = []
        try:
            for offset in offsets:
                await self.qmp("pmemsave", val=offset, size=length, filename=str(path))
                pieces.append(path.read_bytes())  # a few pages that were written just now
        finally:
            path.unlink(missing_ok=True)
        return pieces

    async def console(self) -> Path:
        """The socket of its serial console."""
        return self.run_dir / "console"

    async def prepare_outgoing(self, *, throttle: bool = False, post_copy: bool = False) -> None:
        """Capabilities of a safe hand-over; no bandwidth limit of QEMU's own, nothing of a migration before."""
        chosen = {"auto-converge": throttle, "multifd": False, "postcopy-ram": post_copy}
        await self._capabilities(*_CAPABILITIES, "pause-before-switchover", **chosen)
        await self.qmp("migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH, tls_creds="")

    async def prepare_capture(self) -> None:
        """With a return path QEMU would wait for the word of a destination."""
        off = dict.fromkeys(("return-path", "auto-converge", "postcopy-ram", "multifd"), False)
        await self._capabilities("events", "pause-before-switchover", **off)
        await self.qmp("migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH, tls_creds="")

    async def migrate(self, socket: Path, *, downtime_ms: int) -> None:
        """Start to send."""
        await self.set_downtime(downtime_ms)
        await self.qmp("migrate", uri=f"unix:{socket}")

    async def set_downtime(self, downtime_ms: int) -> None:
        """The downtime that QEMU aims at with the bandwidth that it sees."""
        await self.qmp("migrate-set-parameters", downtime_limit=downtime_ms)

    async def migration_status(self) -> MigrationStatus:
        """QEMU's word on it."""
        answer = await self.qmp("query-migrate")
        ram = answer.get("ram", {})
        return MigrationStatus(
            answer.get("status", "none"),
            ram.get("remaining", 0),
            ram.get("dirty-pages-rate", 0),
            ram.get("dirty-sync-count", 0),
            answer.get("downtime", 0),
            answer.get("cpu-throttle-percentage", 0),
            answer.get("error-desc", ""),
            ram.get("duplicate", 0) * PAGE_BYTES,
            ram.get("normal-bytes", 0),
            ram.get("transferred", 0),
        )

    async def continue_migration(self) -> None:
        """Go on from ``pre-switchover``."""
        await self.qmp("migrate-continue", state="pre-switchover")

    async def start_post_copy(self) -> None:
        """QEMU does so once the pass under way lets it."""
        await self.qmp("migrate-start-postcopy")

    async def resume_migration(self, socket: Path) -> None:
        """Its other end tells first which pages it has."""
        await self._until_paused()
        await self.qmp("migrate", uri=f"unix:{socket}", resume=True)

    async def cancel_migration(self) -> None:
        """Give the migration up. A post-copy that is broken ends as if it were complete: the guest stands still."""
        if (await self.migration_status()).status in BROKEN:
            await self._until_paused()
            async with ContentDestination.at(self.run_dir / "nobody", await self._ram_blocks()) as nobody:
                await self.qmp("migrate", uri=f"unix:{nobody.path}", resume=True)
                await self._until("completed", "postcopy-paused")  # the latter: it was cut once more
        else:
            await self.qmp("migrate_cancel")

    async def _ram_blocks(self) -> dict[str, int]:
        return ram_blocks(await self.qmp("human-monitor-command", command_line="info ramblock"))

    async def _until_paused(self) -> None:
        """Out of band: a connection that is silent is broken by hand."""
        if (await self.migration_status()).status != "postcopy-paused":
            with contextlib.suppress(QmpError):  # it has noticed by itself meanwhile
                await self._control.execute("migrate-pause", out_of_band=True)
        await self._until("postcopy-paused")

    async def _until(self, *statuses: str) -> None:
        """Look until its migration comes to one of ``statuses``; raises QmpError."""
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                while (seen := (await self.migration_status()).status) not in statuses:  # noqa: ASYNC110 - QEMU is asked
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise QmpError("query-migrate", "GenericError", f"the migration is {seen}, and not {statuses}") from None

    async def cut_migration(self) -> bool:
        """Out of band: the first monitor may hang in a connection that nobody reads any more."""
        try:
            await self._control.execute("yank", out_of_band=True, instances=[{"type": "migration"}])
        except QmpError as error:
            if "not found" not in error.description:
                raise
            return False
        return True

    async def migrate_direct(
        self, link: DirectLink, address: str, *, downtime_ms: int, bandwidth_bytes_s: int | None
    ) -> None:
        """Start to send, over TLS and several connections."""
        await self._set_direct(link, "client")
        await self._capabilities("multifd")
        await self.qmp("migrate-set-parameters", max_bandwidth=bandwidth_bytes_s or MAX_BANDWIDTH)
        await self.set_downtime(downtime_ms)
        await self.qmp("migrate", uri=f"tcp:{address}")

    async def listen_direct(self, link: DirectLink, host: str, ports: tuple[int, int]) -> int:
        """The kernel says which port is free; QEMU takes the next when it is not."""
        await self._capabilities(*_CAPABILITIES, "multifd")
        await self._set_direct(link, "server")
        first, last = ports
        name = f"[{host}]" if ":" in host else host
        await self.qmp("migrate-incoming", uri=f"tcp:{name}:{first},to={last}")
        return int((await self.qmp("query-migrate"))["socket-address"][0]["port"])

    async def _set_direct(self, link: DirectLink, endpoint: str) -> None:
        key = self._link_key = LinkKey.write(self.run_dir, link.key)
        await self.qmp("object-add", **key.object(endpoint))
        await self.qmp("migrate-set-parameters", tls_creds=key.name, multifd_channels=link.channels)

    async def end_direct(self) -> None:
        """QEMU forgets it, then the folder does."""
        if self._link_key is None:
            return
        key, self._link_key = self._link_key, None
        key.remove()
        await self.qmp("object-del", id=key.name)

    async def listen_incoming(self, socket: Path, *, post_copy: bool = False) -> None:
        """Wait for the stream."""
        await self._capabilities(*_CAPABILITIES, **{"postcopy-ram": post_copy})
        await self.qmp("migrate-incoming", uri=f"unix:{socket}")

    async def recover_incoming(self, socket: Path) -> None:
        """Out of band: the first monitor may wait for a page that is not here."""
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                while not await self._recovers(f"unix:{socket}"):  # noqa: ASYNC110 - QEMU is asked
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise QmpError("migrate-recover", "GenericError", "its post-copy does not stand still") from None

    async def _recovers(self, uri: str) -> bool:
        """Refused until QEMU has noticed that its connection is broken, which may be done by hand."""
        with contextlib.suppress(QmpError):
            await self._control.execute("migrate-recover", out_of_band=True, uri=uri)
            return True
        with contextlib.suppress(QmpError):
            await self._control.execute("migrate-pause", out_of_band=True)
        return False

    async def export_writable(self, disks: Sequence[str]) -> list[DiskExport]:
        """Exports that the data plane writes into."""
        return await self._export(disks, writable=True)

    async def export_readable(self, disks: Sequence[str], bitmap: str = "") -> list[DiskExport]:
        """Exports that the data plane reads from."""
        return await self._export(disks, bitmap)

    async def export_instant(self, disks: Sequence[str], bitmap: str) -> list[DiskExport]:
        """Exports of the nodes before the disks that ``point_in_time`` has put there."""
        return await self._export(disks, bitmap, node_prefix="access-")

    async def _export(
        self, disks: Sequence[str], bitmap: str = "", *, writable: bool = False, node_prefix: str = ""
    ) -> list[DiskExport]:
        socket = self.run_dir / "nbd"
        if not self._exports:
            socket.unlink(missing_ok=True)
            await self.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        for disk in disks:
            bitmaps = [{"node": disk, "name": bitmap}] if bitmap else []
            export = {"node_name": node_prefix + disk, "name": disk, "writable": writable, "bitmaps": bitmaps}
            await self.qmp("block-export-add", type="nbd", id=f"nbd-{disk}", **export)
            self._exports.append(f"nbd-{disk}")
        context = f"qemu:dirty-bitmap:{bitmap}" if bitmap else ""
        return [DiskExport(socket, disk, context) for disk in disks]

    async def end_exports(self) -> None:
        """Remove every export, then the server; waits until QEMU has let go of the disks."""
        present = {export["id"] for export in await self.qmp("query-block-exports")}
        async with self.events() as events:
            for export in present:
                await self.qmp("block-export-del", id=export, mode="hard")
            while present:
                event = await anext(events, None)
                if event is None:
                    raise QemuDiedError("QEMU went away while its exports were closed")
                if event.name == "BLOCK_EXPORT_DELETED":
                    present.discard(event.data["id"])
        try:
            await self.qmp("nbd-server-stop")
        except QmpError as error:
            if "not running" not in error.description:
                raise
        self._exports.clear()

    async def start_tracking(self, disks: Sequence[str], bitmap: str, *, persistent: bool = False) -> None:
        """One bitmap a disk, all from the same instant on."""
        await self._transaction([self._add(disk, bitmap, persistent=persistent) for disk in disks])

    async def rotate_tracking(self, disks: Sequence[str], old: str, new: str) -> None:
        """The new bitmaps begin before the old ones hold still, in one transaction: no write falls between."""
        begin = [self._add(disk, new) for disk in disks]
        await self._transaction(begin + [_action("disable", disk, old) for disk in disks])

    async def fork_tracking(self, disks: Sequence[str], source: str, copy: str, new: str) -> None:
        """The copies are taken after the new bitmaps began, in one transaction."""
        begin = [self._add(disk, new) for disk in disks]
        await self._transaction(begin + self._copies(disks, source, copy))

    async def copy_tracking(self, disks: Sequence[str], source: str, copy: str) -> None:
        """At one instant for all disks: ``copy`` holds what ``source`` has marked, which goes on."""
        await self._transaction(self._copies(disks, source, copy))

    def _copies(self, disks: Sequence[str], source: str, copy: str) -> list[dict[str, Any]]:
        merge = [{"node": disk, "target": copy, "bitmaps": [source]} for disk in disks]
        return [
            *[self._add(disk, copy, disabled=True) for disk in disks],
            *[{"type": "block-dirty-bitmap-merge", "data": data} for data in merge],
        ]

    async def drop_tracking(self, disks: Sequence[str], bitmap: str) -> None:
        """Remove bitmaps that are there."""
        for disk, bitmaps in (await self._bitmaps()).items():
            if disk in disks and bitmap in bitmaps:
                await self.qmp("block-dirty-bitmap-remove", node=disk, name=bitmap)

    async def tracked(self, disks: Sequence[str], bitmap: str) -> bool:
        """Whether all disks have this bitmap, whole."""
        bitmaps = await self._bitmaps()
        return all(bitmaps.get(disk, {}).get(bitmap, False) for disk in disks)

    async def marked_bytes(self, disks: Sequence[str], bitmap: str) -> int:
        """By QEMU's own count."""
        nodes = await self.qmp("query-named-block-nodes", flat=True)
        marks = [mark for node in nodes if node["node-name"] in disks for mark in node.get("dirty-bitmaps", ())]
        return sum(mark["count"] for mark in marks if mark.get("name") == bitmap)

    async def bitmaps_like(self, prefix: str) -> list[str]:
        """Names of bitmaps that begin with ``prefix``, on any disk."""
        found = {name for bitmaps in (await self._bitmaps()).values() for name in bitmaps}
        return sorted(name for name in found if name.startswith(prefix))

    async def grow_disk(self, disk: str, size_bytes: int) -> None:
        """Make a disk of the running guest larger."""
        await self.qmp("block_resize", node_name=disk, size=size_bytes)

    async def _bitmaps(self) -> dict[str, dict[str, bool]]:
        """Disk → bitmap → whether it is consistent; those of QEMU itself have no name."""
        nodes = await self.qmp("query-named-block-nodes", flat=True)
        marks = {node["node-name"]: node.get("dirty-bitmaps", ()) for node in nodes}
        return {
            node: {mark["name"]: not mark.get("inconsistent", False) for mark in found if "name" in mark}
            for node, found in marks.items()
        }

    def _add(self, disk: str, bitmap: str, *, persistent: bool = False, disabled: bool = False) -> dict[str, Any]:
        marks = {"granularity": granularity(self._sizes[disk]), "persistent": persistent, "disabled": disabled}
        return {"type": "block-dirty-bitmap-add", "data": {"node": disk, "name": bitmap, **marks}}

    async def _transaction(self, actions: list[dict[str, Any]]) -> None:
        if actions:
            await self.qmp("transaction", actions=actions)

    async def _capabilities(self, *names: str, **states: bool) -> None:
        states = {**dict.fromkeys(names, True), **states}
        wanted = [{"capability": name, "state": state} for name, state in states.items()]
        await self.qmp("migrate-set-capabilities", capabilities=wanted)


def granularity(disk_bytes: int) -> int:
    """Bytes for which one mark of a dirty bitmap stands: whole blocks, so many that the bitmap stays small."""
    blocks = -(-disk_bytes // PAGE_BYTES // MAX_MARKS)
    return PAGE_BYTES << max(0, blocks - 1).bit_length()


def _action(verb: str, disk: str, bitmap: str) -> dict[str, Any]:
    return {"type": f"block-dirty-bitmap-{verb}", "data": {"node": disk, "name": bitmap}}


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_WORDS_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""

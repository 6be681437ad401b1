"""Backups of a node's VMs: each is byte by byte the instant that it shows, whatever breaks off before it."""

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from novacron.agent.backup_base import NO_MARKS, NOT_WHOLE
from novacron.agent.backups import Backups, facts_of
from novacron.agent.frozen import AT_MOST_S, frozen
from novacron.agent.work_files import WorkFiles
from novacron.control import specs
from novacron.core.clock import ManualClock
from novacron.core.errors import RemoteError
from novacron.core.ids import BackupId, RestoreId, VmId, new_id
from novacron.core.units import MIB
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, ZERO
from novacron.migration.disk_backup import DiskBackup
from novacron.protocol.backup import BackupOrder, BackupRef, BackupReport, BackupRestoreOrder, RepositoryPlace
from novacron.protocol.checkpoint import RestoreRef, RestoreReport
from novacron.protocol.node import Nothing, VmCreate, VmRef, VmReport, VmStop
from novacron.protocol.vm import DiskSpec
from novacron.repository.chunkers import BY_CONTENT, FIXED
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.reader import pieces
from novacron.repository.repository import Repository
from novacron.repository.writer import Written
from support.clusters import in_memory
from support.nodes import VM, Nodes, spec
from support.pair import small_spec

pytestmark = pytest.mark.xdist_group("qemu-1")
PASSPHRASE = "correct horse"
Image = dict[int, bytes]  # blocks of 4 KiB that are not zeros


class Site:
    """One node with a guest of two disks, and a repository that is not the node's."""

    def __init__(self, nodes: Nodes, vm_spec, directory: Path, chunker) -> None:
        self.nodes = nodes
        self.spec = vm_spec
        self.directory = directory / "repository"
        self.place = RepositoryPlace(address=str(self.directory), how="passphrase", secret=PASSPHRASE.encode())
        self.repository = Repository.create(
            FolderStore(self.directory), Secret.passphrase(PASSPHRASE), directory / "index", chunker
        )

    async def call(self, method: str, request, kind):
        return await self.nodes.clients["a"].call(method, request, kind)

    async def boot(self) -> None:
        await self.call("vm.create", VmCreate(VM, self.spec, 1), VmReport)
        await self.call("vm.start", VmRef(VM), VmReport)
        await self.at_work()

    async def at_work(self, vm_id: VmId = VM) -> None:
        async with self.nodes.console("a", vm_id) as guest:
            for _ in range(2):
                await guest.wait_for("t")

    async def check(self, tag: str, vm_id: VmId = VM) -> dict:
        async with self.nodes.console("a", vm_id) as guest:
            found = await guest.check(tag)
        assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
        return found

    async def machine(self):
        return await self.nodes.agents["a"]._vms.machine(VM)

    async def backup(self, **given) -> BackupReport:
        order = BackupOrder(BackupId(new_id("backup")), VM, self.place, **given)
        await self.call("backup.create", order, BackupReport)
        return await self.ended(order.backup_id)

    async def ended(self, backup_id: BackupId) -> BackupReport:
        async with asyncio.timeout(60):
            while True:
                report = await self.call("backup.report", BackupRef(backup_id), BackupReport)
                if report.state != "working":
                    return report
                await asyncio.sleep(0.02)

    async def restored(self, order: BackupRestoreOrder) -> RestoreReport:
        await self.call("backup.restore", order, RestoreReport)
        async with asyncio.timeout(60):
            while True:
                ref = RestoreRef(order.restore_id)
                report = await self.call("checkpoint.restore_report", ref, RestoreReport)
                if report.state != "working":
                    return report
                await asyncio.sleep(0.02)

    async def image(self, backup_id: str) -> list[Image]:
        """What the repository has of each disk."""
        self.repository.refresh()
        manifest, found = self.repository.manifest(backup_id), []
        for disk in facts_of(manifest).spec.disks:
            blocks: Image = {}
            async for offset, data in pieces(self.repository, manifest.stream(f"disk/{disk.id}")):
                blocks |= blocks_of(offset, data)
            found.append(blocks)
        return found


def blocks_of(offset: int, data: bytes) -> Image:
    whole = {(offset + at) // 4096: data[at : at + 4096] for at in range(0, len(data), 4096)}
    return {number: block for number, block in whole.items() if any(block)}


async def on_disk(exports) -> list[Image]:
    found = []
    for export in exports:
        blocks: Image = {}
        async with NbdClient.connect(export, contexts=[ALLOCATION]) as disk:
            for extent in await disk.extents(ALLOCATION):
                if not extent.flags & ZERO:
                    for at in range(extent.offset, extent.offset + extent.length, MIB):
                        length = min(MIB, extent.offset + extent.length - at)
                        blocks |= blocks_of(at, await disk.read(at, length))
        found.append(blocks)
    return found


@asynccontextmanager
async def one_node(directory, accelerator_file, vm_spec, chunker, *, driver=None, guest_files=None):
    ram = Path(tempfile.mkdtemp(prefix="nc-ram-", dir="/dev/shm"))
    nodes = Nodes(directory, ram, accelerator_file, **({"driver": driver} if driver else {}))
    try:
        await nodes.start("a")
        if guest_files is not None:
            await nodes.place_images("a", guest_files)
        yield Site(nodes, vm_spec, directory, chunker)
    finally:
        await nodes.close()
        shutil.rmtree(ram, ignore_errors=True)


@pytest.fixture
async def on_qemu(short_dir, guest_files, accelerator_file):
    vm_spec = msgspec.structs.replace(spec(), disks=(*spec().disks, DiskSpec("disk1", 8 * MIB)))
    async with one_node(short_dir, accelerator_file, vm_spec, FIXED, guest_files=guest_files) as site:
        yield site


@pytest.fixture
async def on_memory(short_dir, accelerator_file):
    disks = (DiskSpec("disk0", 12 * MIB), DiskSpec("disk1", 8 * MIB))
    vm_spec = msgspec.structs.replace(small_spec(), boot=None, memory_bytes=16 * MIB, disks=disks)
    async with one_node(short_dir, accelerator_file, vm_spec, BY_CONTENT, driver=in_memory()) as site:
        yield site


@pytest.fixture(params=["on_qemu", "on_memory"])
def site(request) -> Site:
    return request.getfixturevalue(request.param)


@pytest.fixture
def references(monkeypatch) -> list[list[Image]]:
    """The disks at the instant of each backup: the guest stands still for the comparison."""
    found: list[list[Image]] = []
    instant = Backups._instant

    async def compared(self, order, source, base):
        machine = source.machine
        if machine is None:
            exports, freeze = await instant(self, order, source, base)
            found.append(await on_disk(exports))
            return exports, freeze
        await machine.pause()
        found.append(await on_disk(await machine.export_readable([disk.id for disk in machine.spec.disks])))
        await machine.end_exports()
        held = await instant(self, order, source, base)
        await machine.resume()
        return held

    monkeypatch.setattr(Backups, "_instant", compared)
    return found


async def test_each_backup_is_its_instant_of_a_guest_at_work_and_of_one_that_is_off(site, references):
    await site.boot()
    reports = []
    for _ in range(3):
        reports.append(await site.backup(freeze=False))
        await site.at_work()
    await site.check("well")
    await site.call("vm.stop", VmStop(VM, force=True), VmReport)
    reports += [await site.backup(), await site.backup()]
    await site.call("vm.start", VmRef(VM), VmReport)
    await site.at_work()
    reports.append(await site.backup(freeze=False))
    assert [report.state for report in reports] == ["done"] * 6, reports
    facts = [report.facts for report in reports]
    assert [one.base for one in facts] == ["", *(report.backup_id for report in reports[:-1])]
    assert facts[0].full_because == NO_MARKS
    assert [one.full_because for one in facts[1:]] == [""] * 5
    assert [one.consistency for one in facts] == ["crash", "crash", "crash", "off", "off", "crash"]
    assert facts[4].read_bytes == facts[4].new_bytes == 0  # and yet it is a backup
    for report, reference in zip(reports, references, strict=True):
        assert await site.image(report.backup_id) == reference
    assert references[0] != references[1] != references[2] != references[3] == references[4] != references[5]
    whole = await site.backup(full=True, freeze=False)
    assert whole.facts.full_because == "it was asked for"
    assert await site.image(whole.backup_id) == references[-1]
    last = await site.machine()
    assert len(await last.bitmaps_like("backup-")) == 1
    await site.check("end")


async def test_what_the_marks_lean_on_may_go_and_another_repository_has_its_own(site, references, tmp_path):
    await site.boot()
    first = await site.backup(freeze=False)
    other = Site(site.nodes, site.spec, tmp_path, FIXED)
    assert (await other.backup(freeze=False)).facts.full_because == NO_MARKS
    second = await site.backup(freeze=False)
    assert second.facts.base == first.backup_id
    site.repository.delete_manifest(second.backup_id)
    await site.at_work()
    third = await site.backup(freeze=False)
    assert third.facts.full_because == "the backup to which the marks belong is not in the repository"
    assert await site.image(third.backup_id) == references[-1]
    again = BackupOrder(third.backup_id, VM, site.place)
    assert (await site.call("backup.create", again, BackupReport)).facts == third.facts
    await site.nodes.stop("a")
    await site.nodes.start("a")
    await site.call("backup.create", again, BackupReport)
    assert (await site.ended(third.backup_id)).facts == third.facts


async def test_after_a_crash_of_qemu_all_is_read_and_why_is_told(on_qemu, references):
    site = on_qemu
    await site.boot()
    first = await site.backup(freeze=False)
    await site.call("vm.stop", VmStop(VM, force=True), VmReport)  # QEMU writes its bitmaps down
    await site.call("vm.start", VmRef(VM), VmReport)
    await site.at_work()
    await (await site.machine()).kill()
    off = await site.backup()
    assert off.facts.full_because == NOT_WHOLE
    assert off.facts.new_bytes < first.facts.new_bytes / 2
    await site.call("vm.start", VmRef(VM), VmReport)
    await site.at_work()
    later = await site.backup(freeze=False)
    assert later.facts.base == off.backup_id
    await site.at_work()
    await (await site.machine()).kill()  # before its bitmap was written down
    await site.call("vm.start", VmRef(VM), VmReport)
    last = await site.backup(freeze=False)
    assert last.facts.full_because == NO_MARKS
    for report, reference in zip((first, off, later, last), references, strict=True):
        assert await site.image(report.backup_id) == reference


ENDS = [("on_qemu", True), ("on_memory", True), ("on_memory", False)]
STEPS = [(Backups, "_instant"), (DiskBackup, "store"), (Backups, "_settle")]


@pytest.mark.parametrize(("site", "killed"), ENDS, indirect=["site"], ids=["killed-on_qemu", "killed", "stopped"])
@pytest.mark.parametrize("step", STEPS, ids=[name for _, name in STEPS])
async def test_a_node_that_ends_at_any_step_goes_on_with_the_next_backup(site, step, killed, monkeypatch):
    """Killed: nothing of what it would clear up is done. At each step its work is done, and nothing after it."""
    await site.boot()
    first = await site.backup(freeze=False)
    reached, (owner, name) = asyncio.Event(), step
    work = getattr(owner, name)

    async def last(*given):
        if name != "_settle":
            await work(*given)
        if killed:
            await (await site.machine()).pause()  # as between the filters of two disks
        reached.set()
        await asyncio.Event().wait()

    async def nothing(*_given) -> None:
        pass

    with monkeypatch.context() as broken:
        broken.setattr(owner, name, last)
        if killed:
            broken.setattr(Backups, "_give_up", nothing)
            broken.setattr(WorkFiles, "end", lambda *_: None)
        order = BackupOrder(BackupId(new_id("backup")), VM, site.place, freeze=False)
        await site.call("backup.create", order, BackupReport)
        await reached.wait()
        await site.nodes.stop("a")
    await site.nodes.start("a")
    await site.at_work()
    assert [vm.state for vm in (await site.nodes.describe("a")).vms] == ["running"]
    found: list[list[Image]] = []
    instant = Backups._instant

    async def looked(self, order, source, base):
        exports, freeze = await instant(self, order, source, base)
        found.append(await on_disk(exports))
        return exports, freeze

    monkeypatch.setattr(Backups, "_instant", looked)
    report = await site.backup(freeze=False)
    assert report.state == "done", report
    assert report.facts.base == (order.backup_id if name == "_settle" else first.backup_id)
    assert await site.image(report.backup_id) == found[0]
    await site.check("well")


async def test_a_backup_that_is_given_up_leaves_nothing(site, monkeypatch):
    await site.boot()
    reached = asyncio.Event()

    async def hang(*_given):
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as broken:
        broken.setattr(DiskBackup, "store", hang)
        order = BackupOrder(BackupId(new_id("backup")), VM, site.place, freeze=False)
        await site.call("backup.create", order, BackupReport)
        await reached.wait()
        await site.call("backup.cancel", BackupRef(order.backup_id), Nothing)
    report = await site.ended(order.backup_id)
    assert (report.state, report.error_code) == ("failed", "backup_broken_off")
    assert site.repository.manifests() == []
    assert await (await site.machine()).bitmaps_like("backup-") == []
    await site.check("well")


async def test_disks_come_back_in_place_and_as_a_new_vm(site, references):
    await site.boot()
    backup = await site.backup(freeze=False)
    at_the_instant = await site.image(backup.backup_id)
    await site.at_work()

    def order(vm_id: VmId = VM, **given) -> BackupRestoreOrder:
        return BackupRestoreOrder(RestoreId(new_id("restore")), backup.backup_id, vm_id, site.place, **given)

    refused = await site.restored(order(overwrite=True))
    assert (refused.state, refused.error_code) == ("failed", "vm_state")
    await site.call("vm.stop", VmStop(VM, force=True), VmReport)
    before = await site.backup()
    refused = await site.restored(order())
    assert (refused.state, refused.error_code) == ("failed", "vm_state")
    copy = VmId(new_id("vm"))
    await site.call("vm.create", VmCreate(copy, specs.copied(site.spec, "copy"), 1), VmReport)
    assert (await site.restored(order(copy, overwrite=True))).error_code == "backup_unknown"
    assert (await site.restored(order(copy, copies=True))).state == "done"
    assert await site.image((await site.backup()).backup_id) == await site.image(before.backup_id)

    assert (await site.restored(order(overwrite=True))).state == "done"
    back = await site.backup()
    assert back.facts.full_because == NO_MARKS
    assert await site.image(back.backup_id) == at_the_instant == references[0]
    for vm_id in (copy, VM):
        await site.call("vm.start", VmRef(vm_id), VmReport)
        await site.at_work(vm_id)
        await site.check("back", vm_id)


async def test_a_repository_that_cannot_be_opened_is_told(on_memory):
    site = on_memory
    await site.boot()
    wrong = msgspec.structs.replace(site.place, secret=b"wrong")
    for place, code in ((wrong, "repository_key"), (RepositoryPlace(address="/nowhere"), "repository_missing")):
        order = BackupOrder(BackupId(new_id("backup")), VM, place)
        await site.call("backup.create", order, BackupReport)
        assert (await site.ended(order.backup_id)).error_code == code
    with pytest.raises(RemoteError, match="knows no backup"):
        await site.call("backup.report", BackupRef(BackupId("backup-0")), BackupReport)


async def test_what_is_stored_keeps_to_its_rate():
    clock, taken = ManualClock(), list[int]()
    writer = SimpleNamespace(written=Written())
    backup = DiskBackup(writer, clock, rate_bytes_s=1000)

    async def source():
        for number in range(3):
            yield number, b""

    async def take() -> None:
        async for number, _ in backup._paced(source(), clock.monotonic()):
            taken.append(number)
            writer.written.stored_bytes += 5000

    taking = asyncio.create_task(take())
    seen = []
    for seconds in (0, 4.9, 0.1, 4.9, 0.1):
        for _ in range(3):
            await asyncio.sleep(0)
        await clock.advance(seconds)
        seen.append(len(taken))
    await taking
    assert seen == [1, 1, 2, 2, 3]


class Machine:
    """A guest with an agent."""

    vm_id = VM

    def __init__(self, *, agrees: bool = True, there: bool = True) -> None:
        self.said: list[str] = []
        self._agrees = agrees
        self._there = there

    async def guest_ping(self) -> bool:
        return self._there

    async def freeze(self) -> bool:
        await asyncio.sleep(0)
        self.said.append("freeze")
        return self._agrees

    async def thaw(self) -> None:
        self.said.append("thaw")


async def test_file_systems_are_held_for_a_moment_only():
    clock = ManualClock()
    machine = Machine()
    async with frozen(machine, clock) as freeze:
        assert freeze.held
        await clock.advance(AT_MOST_S / 2)
        assert machine.said == ["freeze"]
    assert (freeze.held, machine.said) == (True, ["freeze", "thaw"])
    assert freeze.frozen_ms == AT_MOST_S / 2 * 1000

    machine = Machine()
    async with frozen(machine, clock) as freeze:
        await clock.advance(AT_MOST_S)
        assert machine.said == ["freeze", "thaw"]  # while the body goes on
    assert not freeze.held
    assert "for more than 5 s" in freeze.note

    machine = Machine()
    with pytest.raises(ValueError, match="broken"):
        async with frozen(machine, clock):
            raise ValueError("broken")
    assert machine.said == ["freeze", "thaw"]

    machine = Machine(agrees=False)
    async with frozen(machine, clock) as freeze:
        assert not freeze.held
    assert machine.said == ["freeze", "thaw"]
    assert freeze.note

    machine = Machine(there=False)
    async with frozen(machine, clock) as freeze:
        assert not freeze.held
    assert (machine.said, freeze.note) == ([], "")

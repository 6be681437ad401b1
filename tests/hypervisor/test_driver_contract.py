"""What every driver does, whatever its VMs are made of."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from novacron.core.units import GIB, MIB
from novacron.hypervisor.driver import DirectLink, MachineState
from novacron.hypervisor.errors import (
    BadImageError,
    MachineTypeError,
    NbdError,
    NoRoomError,
    QemuDiedError,
    QmpError,
    UnsupportedError,
    VmStateError,
    VmUnknownError,
)
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, DIRTY, ZERO
from novacron.hypervisor.spec import DiskSpec
from support.pair import VM, Pair, console

pytestmark = pytest.mark.xdist_group("qemu-2")
BLOCK = 64 * 1024  # the most that one mark stands for


async def incoming(driver, spec, *, overlay: bool = False, name: str = "in"):
    """An instance that waits for its state."""
    ram = driver.ram_file(VM, name)
    await driver.reserve_ram(ram, spec.memory_bytes)
    return await driver.prepare_incoming(VM, spec, ram_path=ram, overlay=overlay)


async def test_a_vm_is_made_once_and_pinned(hypervisor):
    driver = hypervisor.make("a")
    with pytest.raises(VmUnknownError):
        driver.spec(VM)
    pinned = await driver.create(VM, hypervisor.blank)
    assert await driver.create(VM, msgspec.structs.replace(hypervisor.blank, vcpus=2)) == pinned
    assert driver.spec(VM) == pinned
    assert driver.vms() == [VM]
    assert pinned == hypervisor.blank


async def test_whoever_asks_at_once_for_an_instance_speaks_with_it(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.blank)
    await driver.start(VM)
    await driver.detach()
    driver = hypervisor.make("a")
    async with asyncio.timeout(30):
        (one,), (other,) = await asyncio.gather(driver.adopt(VM), driver.adopt(VM))
        assert await one.state() is await other.state() is MachineState.RUNNING
    await one.kill()


async def test_an_instance_ends_that_nobody_speaks_with(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.blank)
    machine = await driver.start(VM)
    await driver.detach()
    driver = hypervisor.make("a")
    await driver.kill(VM, "run-of-another")
    assert [found.instance for found in await driver.adopt(VM)] == [machine.instance]
    await driver.detach()
    driver = hypervisor.make("a")
    for _ in range(2):
        await driver.kill(VM, machine.instance)
    assert await driver.adopt(VM) == []


async def test_an_instance_is_found_again_and_ends_once(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.blank)
    machine = await driver.start(VM)
    assert await machine.state() is MachineState.RUNNING
    await machine.pause()
    assert await machine.state() is MachineState.PAUSED
    await driver.detach()
    driver = hypervisor.make("a")
    (again,) = await driver.adopt(VM)
    assert again.instance == machine.instance
    assert again.spec == machine.spec
    await again.resume()
    assert await again.state() is MachineState.RUNNING
    with pytest.raises(VmStateError, match="has an instance already"):
        await driver.start(VM)
    with pytest.raises(VmStateError, match="runs"):
        await driver.delete(VM)
    await again.quit()
    await again.quit()
    await again.kill()
    await again.wait_gone()
    assert await again.state() is MachineState.GONE
    assert await driver.adopt(VM) == []
    assert not again.ram_path.exists()
    await driver.delete(VM)
    await driver.delete(VM)
    with pytest.raises(VmUnknownError):
        driver.spec(VM)


async def test_what_happens_is_told_and_the_telling_ends_with_the_instance(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.blank)
    machine = await driver.start(VM)
    async with machine.events() as events:
        await machine.pause()
        await machine.resume()
        await machine.kill()
        names = [event.name async for event in events]
    assert [name for name in names if name in {"STOP", "RESUME"}] == ["STOP", "RESUME"]
    async with machine.events() as events:
        assert [event async for event in events] == []
    for action in (machine.pause, machine.resume, machine.vital_signs, machine.migration_status, machine.end_exports):
        with pytest.raises(QemuDiedError):
            await action()


async def test_a_guest_that_runs_shows_it_and_one_that_stands_still_does_not(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.guest)
    machine = await driver.start(VM)
    async with console(machine) as guest:
        await guest.wait_for("t")
        before = await machine.vital_signs()
        await guest.wait_for("t")
        assert await machine.vital_signs() > before
        assert not await machine.guest_ping()
        found = await guest.check("alive")
    assert (found["check"], found["errors"], found["lost"], found["doubled"]) == ("alive", 0, 0, 0)
    await machine.pause()
    _, records = await machine.vital_signs()
    assert (await machine.vital_signs())[1] == records


async def test_sizes_change_by_the_rules(hypervisor):
    driver = hypervisor.make("a")
    pinned = await driver.create(VM, hypervisor.blank)
    more = msgspec.structs.replace(pinned, vcpus=2, disks=(DiskSpec("disk0", 32 * MIB), pinned.disks[1]))
    assert await driver.resize(VM, more) == more
    with pytest.raises(BadImageError, match="only grow"):
        await driver.resize(VM, pinned)
    with pytest.raises(VmStateError, match="changes CPUs, memory and the size of disks only"):
        await driver.resize(VM, msgspec.structs.replace(more, disks=more.disks[:1]))
    machine = await driver.start(VM)
    with pytest.raises(VmStateError, match="change while it is stopped"):
        await driver.resize(VM, msgspec.structs.replace(more, vcpus=1))
    most = msgspec.structs.replace(more, disks=(more.disks[0], DiskSpec("disk1", 64 * MIB)))
    assert await driver.resize(VM, most) == most
    assert machine.spec == most
    export = (await machine.export_readable(["disk1"]))[0]
    async with NbdClient.connect(export) as disk:
        assert disk.size_bytes == 64 * MIB


async def test_every_write_marks_what_is_tracked_from_its_instant_on(hypervisor):
    machine = await incoming(hypervisor.make("a"), hypervisor.blank)
    names = ["disk0", "disk1"]
    exports = await machine.export_writable(names)
    async with NbdClient.connect(exports[0]) as first, NbdClient.connect(exports[1]) as second:
        await first.write(5, b"before any")
        await machine.start_tracking(names, "old", persistent=True)
        await first.write(3 * BLOCK + 7, b"old")
        await first.write(4 * BLOCK - 2, b"over a border")
        await machine.rotate_tracking(names, "old", "new")
        await first.write_zeroes(7 * BLOCK, BLOCK)
        await second.write(BLOCK, b"new")
        await first.flush()
        assert await first.read(3 * BLOCK + 7, 3) == b"old"
        assert await first.read(0, 20) == b"\0" * 5 + b"before any" + b"\0" * 5
    await machine.end_exports()
    assert await dirty(machine, "old") == [[3, 4], []]
    with pytest.raises(QmpError):
        await machine.start_tracking(names, "old")
    await machine.fork_tracking(names, "new", "copy", "newer")
    assert await machine.bitmaps_like("new") == ["new", "newer"]
    assert await dirty(machine, "copy") == [[7], [1]]
    assert await machine.tracked(names, "copy")
    assert not await machine.tracked(names, "never")
    for name in ("copy", "copy", "never"):
        await machine.drop_tracking(names, name)
    assert not await machine.tracked(names, "copy")


async def dirty(machine, bitmap: str) -> list[list[int]]:
    """Numbers of the blocks in which a bitmap marks something, by disk: a mark may stand for less."""
    found = []
    for export in await machine.export_readable(["disk0", "disk1"], bitmap):
        async with NbdClient.connect(export, contexts=[ALLOCATION, export.bitmap]) as disk:
            marked = [e for e in await disk.extents(export.bitmap) if e.flags & DIRTY]
            found.append(
                sorted({n for e in marked for n in range(e.offset // BLOCK, -(-(e.offset + e.length) // BLOCK))})
            )
    await machine.end_exports()
    return found


async def test_an_export_tells_what_is_stored_and_keeps_to_its_bounds(hypervisor):
    machine = await incoming(hypervisor.make("a"), hypervisor.blank)
    (writable,) = await machine.export_writable(["disk1"])
    async with NbdClient.connect(writable, contexts=[ALLOCATION]) as disk:
        assert [(e.offset, e.length) for e in await disk.extents(ALLOCATION) if e.flags & ZERO] == [(0, 8 * MIB)]
        await disk.write(2 * MIB, b"x" * BLOCK)
        stored = [e for e in await disk.extents(ALLOCATION) if not e.flags & ZERO]
        assert (stored[0].offset, stored[-1].offset + stored[-1].length) == (2 * MIB, 2 * MIB + BLOCK)
        with pytest.raises(NbdError):
            await disk.read(8 * MIB - 1, 2)
        assert await disk.read(2 * MIB, 1) == b"x"
    await machine.end_exports()
    (readable,) = await machine.export_readable(["disk1"])
    async with NbdClient.connect(readable) as disk:
        with pytest.raises(NbdError):
            await disk.write(0, b"no")
        assert await disk.read(2 * MIB, 1) == b"x"
    with pytest.raises(NbdError, match="refuses option"):
        async with NbdClient.connect(replace(readable, name="disk9")):
            raise AssertionError
    with pytest.raises(NbdError, match="does not offer"):
        async with NbdClient.connect(readable, contexts=["qemu:dirty-bitmap:none"]):
            raise AssertionError


async def test_what_waits_for_its_state_cannot_run_and_is_dropped_whole(hypervisor):
    driver = hypervisor.make("a")
    machine = await incoming(driver, hypervisor.blank)
    assert await machine.state() is MachineState.PRELAUNCH or await machine.state() is MachineState.INMIGRATE
    await machine.listen_incoming(machine.run_dir / "in")
    with pytest.raises(VmStateError, match="cannot run before its state is here"):
        await machine.resume()
    (found,) = await driver.adopt(VM)
    assert await driver.end_incoming(VM, found.instance, keep_disks=False) == machine.ram_path
    assert await driver.end_incoming(VM, found.instance, keep_disks=False) is None
    assert await found.state() is MachineState.GONE
    assert await driver.adopt(VM) == []
    assert machine.ram_path.exists()  # its caller may keep it
    with pytest.raises(VmUnknownError):
        driver.spec(VM)


async def test_an_overlay_leaves_what_it_lies_over_as_it_was(hypervisor):
    driver = hypervisor.make("a")
    first = await incoming(driver, hypervisor.blank)
    await write(first, b"first")
    await driver.settle_incoming(first)
    await driver.settle_incoming(first)
    await first.kill()
    second = await incoming(driver, hypervisor.blank, overlay=True, name="in2")
    assert await read(second) == b"first"
    await write(second, b"other")
    await driver.end_incoming(VM, second.instance, keep_disks=False)
    third = await incoming(driver, hypervisor.blank, overlay=True, name="in3")
    assert await read(third) == b"first"
    await write(third, b"third")
    await driver.settle_incoming(third)
    await third.kill()
    await driver.collapse(VM)
    assert driver.has_disks(VM, hypervisor.blank)
    assert not driver.has_disks(VM, msgspec.structs.replace(hypervisor.blank, disks=hypervisor.blank.disks[:1]))
    assert not driver.has_disks("vm-2", hypervisor.blank)
    again = await driver.start(VM)
    assert await read(again) == b"third"


async def test_what_a_vm_lies_over_stays_when_an_older_instance_of_it_ends(hypervisor):
    driver = hypervisor.make("a")
    first = await incoming(driver, hypervisor.blank)
    await write(first, b"first")
    await driver.settle_incoming(first)
    await first.kill()
    second = await incoming(driver, hypervisor.blank, overlay=True, name="in2")
    await driver.settle_incoming(second)
    await driver.end_incoming(VM, first.instance, keep_disks=False)
    await second.kill()
    again = await driver.start(VM)
    assert await read(again) == b"first"


async def test_instances_and_files_that_nobody_knows_are_found(hypervisor):
    driver = hypervisor.make("a")
    known = await incoming(driver, hypervisor.blank)
    await known.kill()
    assert driver.instances(VM) == [known.instance]
    nobodys = driver.ram_file("vm-2", "in")
    await driver.reserve_ram(nobodys, MIB)
    assert driver.unused_ram() == [nobodys]
    nobodys.unlink()
    assert await driver.unused_disks(VM) == []


async def test_what_came_of_a_vm_that_never_ran_is_kept_also_when_it_died_by_itself(hypervisor):
    driver = hypervisor.make("a")
    first = await incoming(driver, hypervisor.blank)
    await write(first, b"first")
    first.ram_path.write_bytes(b"pages".ljust(hypervisor.blank.memory_bytes, b"\0"))
    await first.kill()
    assert await driver.adopt(VM) == []
    ram = await driver.end_incoming(VM, first.instance, keep_disks=True)
    assert ram.read_bytes()[:5] == b"pages"
    assert driver.has_disks(VM, hypervisor.blank)
    ram.unlink()
    second = await incoming(driver, hypervisor.blank, overlay=True, name="in2")
    assert await read(second) == b"first"


async def test_disks_begin_as_copies_of_a_donors_and_are_their_own(hypervisor):
    driver = hypervisor.make("a")
    lender = await incoming(driver, hypervisor.blank)
    await write(lender, b"lent!")
    await driver.settle_incoming(lender)
    ram = driver.ram_file("vm-2", "in")
    await driver.reserve_ram(ram, hypervisor.blank.memory_bytes)
    other = msgspec.structs.replace(hypervisor.blank, disks=(*hypervisor.blank.disks, DiskSpec("disk2", MIB)))
    borrower = await driver.prepare_incoming("vm-2", other, ram_path=ram, overlay=False, donor=VM)
    assert await read(borrower) == b"lent!"
    await write(borrower, b"other")
    assert await read(lender) == b"lent!"
    (third,) = await borrower.export_readable(["disk2"])
    async with NbdClient.connect(third) as disk:
        assert await disk.read(0, 4) == bytes(4)


async def write(machine, data: bytes) -> None:
    (export,) = await machine.export_writable(["disk0"])
    async with NbdClient.connect(export) as disk:
        await disk.write(MIB, data)
        await disk.flush()
    await machine.end_exports()


async def read(machine) -> bytes:
    (export,) = await machine.export_readable(["disk0"])
    async with NbdClient.connect(export) as disk:
        found = await disk.read(MIB, 5)
    await machine.end_exports()
    return found


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"machine": "pc-q35-99.9"}, MachineTypeError, "no machine pc-q35-99.9"),
        ({"disks": (DiskSpec("disk0", MIB, "disk"),)}, BadImageError, "would cut it off"),
        ({"disks": (DiskSpec("disk0", 1 << 50),)}, NoRoomError, "a disk of"),
    ],
    ids=["machine", "image", "disk"],
)
async def test_what_a_host_cannot_make_is_refused_before_it_is_made(hypervisor, change, error, text):
    driver = hypervisor.make("a")
    with pytest.raises(error, match=text):
        await driver.create(VM, msgspec.structs.replace(hypervisor.blank, **change))
    with pytest.raises(VmUnknownError):
        driver.spec(VM)


async def test_ram_that_does_not_fit_is_refused_before_anything_starts(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, msgspec.structs.replace(hypervisor.blank, memory_bytes=1 << 45))
    with pytest.raises(NoRoomError, match="32 TiB of memory are needed") as caught:
        await driver.start(VM)
    assert caught.value.next_command == "novacron node list"
    assert await driver.adopt(VM) == []


async def test_in_memory_there_is_no_way_straight_to_another_hypervisor(in_memory):
    driver = in_memory.make("a")
    assert not (await driver.capabilities()).direct
    ram = driver.ram_file(VM, "in")
    await driver.reserve_ram(ram, in_memory.blank.memory_bytes)
    with pytest.raises(UnsupportedError, match="as a stream only"):
        await driver.prepare_incoming(VM, in_memory.blank, ram_path=ram, overlay=False, shared=True)
    machine, link = await incoming(driver, in_memory.blank), DirectLink(bytes(32), 2)
    with pytest.raises(UnsupportedError):
        await machine.listen_direct(link, "127.0.0.1", (49152, 49152))
    with pytest.raises(UnsupportedError):
        await machine.migrate_direct(link, "127.0.0.1:49152", downtime_ms=20, bandwidth_bytes_s=None)
    await machine.end_direct()
    assert not await machine.cut_migration()


@asynccontextmanager
async def proxy(machine, take):
    """A socket that the instance migrates to; ``take`` deals with the connection."""
    path = machine.run_dir / "out"
    connected = []

    async def accept(reader, writer) -> None:
        connected.append(writer)
        await take(reader, writer)

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield path
    finally:
        server.close()
        for writer in connected:
            writer.close()


async def until(machine, *statuses: str) -> str:
    async with asyncio.timeout(30):
        while (status := (await machine.migration_status()).status) not in statuses:  # noqa: ASYNC110 - no event tells every way
            await asyncio.sleep(0.01)
        return status


async def test_a_migration_is_cancelled_and_the_guest_runs_on(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.guest)
    machine = await driver.start(VM)
    taken = asyncio.Event()

    async def take_nothing(_reader, _writer) -> None:
        taken.set()

    with pytest.raises(QmpError):
        await machine.continue_migration()  # there is none
    async with proxy(machine, take_nothing) as path:
        await machine.prepare_outgoing()
        await machine.migrate(path, downtime_ms=20)
        await taken.wait()
        with pytest.raises(QmpError):
            await machine.migrate(path, downtime_ms=20)
        await machine.cancel_migration()
        await until(machine, "cancelled", "failed")  # while it sets up, QEMU calls it failed
    assert await machine.state() is MachineState.RUNNING
    await machine.cancel_migration()


async def test_a_proxy_that_hangs_up_fails_the_migration_and_the_guest_runs_on(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.guest)
    machine = await driver.start(VM)

    async def hang_up(_reader, writer) -> None:
        writer.transport.abort()

    async with proxy(machine, hang_up) as path:
        await machine.prepare_outgoing()
        await machine.migrate(path, downtime_ms=300)
        if await until(machine, "failed", "pre-switchover") != "failed":
            await machine.continue_migration()  # until then nobody listens to the socket
        assert await until(machine, "failed", "completed") == "failed"
        assert (await machine.migration_status()).error
    assert await machine.state() is MachineState.RUNNING


async def test_an_instance_whose_state_breaks_off_ends(hypervisor):
    machine = await incoming(hypervisor.make("a"), hypervisor.blank)
    await machine.listen_incoming(machine.run_dir / "in")
    _, writer = await asyncio.open_unix_connection(machine.run_dir / "in")
    writer.write(b"no stream at all")
    writer.close()
    async with asyncio.timeout(30):
        await machine.wait_gone()
    assert await machine.state() is MachineState.GONE


async def test_a_running_guest_moves_there_and_comes_back_for_almost_nothing(hypervisor, short_dir):
    pair = Pair(hypervisor.make, short_dir)
    machine = await pair.boot(hypervisor.guest)
    there = await pair.move(machine, "b", 2)
    assert there.journal == ["ready", "commit", "run"]
    assert there.summary.verified
    assert await machine.state() is MachineState.POSTMIGRATE
    assert await there.machine.state() is MachineState.RUNNING
    async with console(there.machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert found["pages"] > 0

    image = pair.directory / "old.ram"
    image.write_bytes(there.source.shadow)
    await machine.quit()
    back = await pair.move(there.machine, "a", 3, ram_image=there.ram, old_image=image, known_state="mig-2")
    async with console(back.machine) as guest:
        found_back = await guest.check("back")
    assert (found_back["errors"], found_back["lost"], found_back["doubled"]) == (0, 0, 0)
    assert found_back["records"] >= found["records"]
    assert back.summary.wire_bytes < 0.05 * back.summary.guest_bytes


async def test_a_guest_that_has_moved_can_boot_again(on_qemu, short_dir):
    """By its kernel, which is no part of what moves, and with every record that it wrote."""
    pair = Pair(on_qemu.make, short_dir)
    machine = await pair.boot(on_qemu.guest)
    there = await pair.move(machine, "b", 2)
    async with console(there.machine) as guest:
        before = await guest.check("there")
        after = await guest.reboot()
        assert after["kept"] >= before["records"]
        assert (await guest.check("again"))["errors"] == 0


async def test_memory_disks_are_made_from_raw_images_alone(in_memory):
    driver = in_memory.make("a")
    disk = DiskSpec("disk0", 4 * MIB, "disk")
    await driver.create(VM, msgspec.structs.replace(in_memory.blank, disks=(disk,)))
    machine = await driver.start(VM)
    (export,) = await machine.export_readable(["disk0"])
    async with NbdClient.connect(export) as found:
        assert await found.read(0, 10) == b"an image\0\0"
    other = DiskSpec("disk0", GIB, "other")
    with pytest.raises(BadImageError, match="reads raw images"):
        await driver.create("vm-2", msgspec.structs.replace(in_memory.blank, disks=(other,)))


async def test_memory_can_be_looked_at_and_changes_only_while_the_guest_runs(hypervisor):
    driver = hypervisor.make("a")
    await driver.create(VM, hypervisor.guest)
    machine = await driver.start(VM)
    size = 64 * 1024
    everywhere = range(0, machine.spec.memory_bytes // size * size, size)
    async with console(machine) as guest:
        await guest.wait_for("t")
        before = await machine.peek(everywhere, size)
        await guest.wait_for("t")
    assert {len(piece) for piece in before} == {size}
    await machine.pause()
    after = await machine.peek(everywhere, size)
    assert any(piece.strip(b"\0") for piece in after)
    assert after != before
    assert await machine.peek(everywhere, size) == after


async def test_what_a_bitmap_marks_is_counted(hypervisor):
    driver = hypervisor.make("a")
    machine = await incoming(driver, hypervisor.blank)
    disk, _ = await machine.export_writable(["disk0", "disk1"])
    await machine.start_tracking(["disk0", "disk1"], "since-then")
    async with NbdClient.connect(disk) as client:
        await client.write(0, b"x" * BLOCK)
        await client.write(5 * BLOCK, b"x" * BLOCK)
        await client.flush()
    await machine.end_exports()
    assert await machine.marked_bytes(["disk0", "disk1"], "since-then") == 2 * BLOCK
    assert await machine.marked_bytes(["disk1"], "since-then") == 0
    assert await machine.marked_bytes(["disk0"], "another") == 0

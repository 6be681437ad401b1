"""A VM's disks at one instant, on every driver: what is read is that instant, and no write is lost between two."""

import asyncio
import json

import msgspec
import pytest

from novacron.core.units import MIB
from novacron.hypervisor.driver import DiskExport
from novacron.hypervisor.nbd.client import NbdClient
from novacron.hypervisor.nbd.messages import ALLOCATION, DIRTY, ZERO
from novacron.hypervisor.qemu.guest_agent import GuestAgent
from novacron.hypervisor.spec import DiskSpec
from support.pair import VM, console

pytestmark = pytest.mark.xdist_group("qemu-2")
Image = dict[int, bytes]  # blocks of 4 KiB that are not zeros


async def read(export, *, marked: bool = False) -> tuple[Image, set[int]]:
    """Blocks of what is stored, or of what the bitmap marks; and which were looked at."""
    context = export.bitmap if marked else ALLOCATION
    found, looked = {}, set()
    async with NbdClient.connect(export, contexts=[context]) as disk:
        for extent in await disk.extents(context):
            if extent.flags & DIRTY if marked else not extent.flags & ZERO:
                for at in range(extent.offset, extent.offset + extent.length, MIB):
                    data = await disk.read(at, min(MIB, extent.offset + extent.length - at))
                    for within in range(0, len(data), 4096):
                        looked.add((at + within) // 4096)
                        if any(data[within : within + 4096]):
                            found[(at + within) // 4096] = data[within : within + 4096]
    return found, looked


async def now(machine) -> list[Image]:
    """The disks as they are."""
    exports = await machine.export_readable([disk.id for disk in machine.spec.disks])
    images = [(await read(export))[0] for export in exports]
    await machine.end_exports()
    return images


def onto(image: Image, changed: Image, looked: set[int]) -> Image:
    """An older image with what has changed since."""
    return {n: block for n, block in image.items() if n not in looked} | changed


async def at_work(machine, ticks: int = 2) -> None:
    async with console(machine) as guest:
        for _ in range(ticks):
            await guest.wait_for("t")


async def started(hypervisor):
    driver = hypervisor.make("a")
    disks = (*hypervisor.guest.disks, DiskSpec("disk1", 8 * MIB))
    await driver.create(VM, msgspec.structs.replace(hypervisor.guest, disks=disks))
    machine = await driver.start(VM)
    await at_work(machine, 1)
    return driver, machine


async def test_an_instant_stays_while_the_guest_writes_and_marks_miss_nothing(hypervisor):
    driver, machine = await started(hypervisor)
    point = driver.point_in_time(VM, machine)
    await machine.pause()
    exports = await point.begin(since="", onward="b-1")
    reference = await now_beside(machine)
    await machine.resume()
    await at_work(machine)
    image = [(await read(export))[0] for export in exports]
    assert image == reference
    await point.end()
    assert await now(machine) != image  # the guest has written

    for number in (1, 2, 3):  # each at any moment of a guest at work
        await at_work(machine, 1)
        async with machine.events() as events:
            exports = await point.begin(since=f"b-{number}", onward=f"b-{number + 1}")
            await at_work(machine, 1)
            changed = [await read(export, marked=True) for export in exports]
            image = [onto(old, *new) for old, new in zip(image, changed, strict=True)]
            assert [(await read(export))[0] for export in exports] == image
            await point.end()
            await machine.pause()
            await machine.resume()
            names = [(await anext(events)).name for _ in range(2)]
        assert names[0] == "STOP" or not hasattr(machine, "qmp")
        await point.forget(f"b-{number}")
        assert await point.marks("b-") == {f"b-{number + 1}": True}
    async with console(machine) as guest:
        found = await guest.check("well")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def now_beside(machine) -> list[Image]:
    """The disks as they are, of a guest that stands still; nothing that is held is let go of."""
    if not hasattr(machine, "qmp"):
        return await now(machine)
    found = []
    for disk in machine.spec.disks:
        name = f"now-{disk.id}"
        await machine.qmp("block-export-add", type="nbd", id=name, node_name=disk.id, name=name)
        found.append((await read(DiskExport(machine.run_dir / "nbd", name)))[0])
    return found


async def test_what_breaks_off_leaves_the_older_marks_good(hypervisor):
    driver, machine = await started(hypervisor)
    point = driver.point_in_time(VM, machine)
    exports = await point.begin(since="", onward="b-1")
    image = [(await read(export))[0] for export in exports]
    await point.end()
    for _ in range(2):  # given up twice
        await at_work(machine, 1)
        await point.begin(since="b-1", onward="b-2")
        await point.end()
        await point.end()
        await point.forget("b-2")
    exports = await point.begin(since="b-1", onward="b-2")
    changed = [await read(export, marked=True) for export in exports]
    image = [onto(old, *new) for old, new in zip(image, changed, strict=True)]
    assert [(await read(export))[0] for export in exports] == image
    await point.end()


async def test_another_process_lets_go_of_what_was_held(on_qemu):
    driver, machine = await started(on_qemu)
    await driver.point_in_time(VM, machine).begin(since="", onward="b-1")
    await driver.detach()
    driver = on_qemu.make("a")
    (machine,) = await driver.adopt(VM)
    point = driver.point_in_time(VM, machine)
    await point.end()
    await at_work(machine)
    assert await point.marks("b-") == {"b-1": True}
    nodes = {node["node-name"] for node in await machine.qmp("query-named-block-nodes", flat=True)}
    assert not [name for name in nodes if name.startswith(("before-", "access-", "scratch-"))]
    (reading, *_) = await point.begin(since="b-1", onward="b-2")
    assert (await read(reading, marked=True))[1]
    await point.end()


async def test_marks_go_on_from_a_vm_that_runs_to_one_that_is_off_and_back(hypervisor):
    driver, machine = await started(hypervisor)
    point = driver.point_in_time(VM, machine)
    exports = await point.begin(since="", onward="b-1")
    image = [(await read(export))[0] for export in exports]
    await point.end()
    await at_work(machine)
    await machine.quit()
    assert await driver.adopt(VM) == []

    point = driver.point_in_time(VM, None)
    assert await point.marks("b-") == {"b-1": True}
    exports = await point.begin(since="b-1", onward="b-2")
    changed = [await read(export, marked=True) for export in exports]
    image = [onto(old, *new) for old, new in zip(image, changed, strict=True)]
    assert [(await read(export))[0] for export in exports] == image
    assert changed[0][1]
    await point.end()
    await point.forget("b-1")
    exports = await driver.point_in_time(VM, None).begin(since="b-2", onward="b-3")
    assert [(await read(export, marked=True))[1] for export in exports] == [set(), set()]
    await driver.point_in_time(VM, None).end()

    machine = await driver.start(VM)
    await at_work(machine)
    point = driver.point_in_time(VM, machine)
    exports = await point.begin(since="b-2", onward="b-4")
    changed = [await read(export, marked=True) for export in exports]
    image = [onto(old, *new) for old, new in zip(image, changed, strict=True)]
    assert [(await read(export))[0] for export in exports] == image
    await point.end()


async def test_marks_are_not_whole_after_a_crash(on_qemu):
    driver, machine = await started(on_qemu)
    point = driver.point_in_time(VM, machine)
    await point.begin(since="", onward="b-1")
    await point.end()
    await machine.quit()
    machine = await driver.start(VM)  # from here on the bitmap is in use
    await at_work(machine, 1)
    await machine.kill()
    assert await driver.adopt(VM) == []
    assert await driver.point_in_time(VM, None).marks("b-") == {"b-1": False}
    machine = await driver.start(VM)
    point = driver.point_in_time(VM, machine)
    assert await point.marks("b-") == {"b-1": False}
    await point.forget("b-1")
    assert await point.marks("b-") == {}
    await point.begin(since="", onward="b-1")
    assert await point.marks("b-") == {"b-1": True}


class Agent:
    """A guest agent of a few words."""

    def __init__(self, *, frozen: int = 1, silent_to: str = "") -> None:
        self.heard: list[str] = []
        self.left = asyncio.Event()
        self._frozen = frozen
        self._silent_to = silent_to

    async def serve(self, reader, writer) -> None:
        writer.write(b'{"return": "to somebody else"}\n')
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            command = request["execute"]
            answer = {"guest-sync": request.get("arguments", {}).get("id"), "guest-ping": {}}.get(command, self._frozen)
            if command != "guest-sync":
                self.heard.append(command)
            if command != self._silent_to:
                writer.write(json.dumps({"return": answer}).encode() + b"\n")
        writer.close()
        await writer.wait_closed()
        self.left.set()


async def test_the_guests_agent_is_asked_only_when_it_has_answered(short_dir):
    agent = Agent()
    async with await asyncio.start_unix_server(agent.serve, short_dir / "agent"):
        there = GuestAgent(short_dir / "agent")
        assert await there.ping()
        assert await there.freeze()
        await there.thaw()
    assert agent.heard == ["guest-ping", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]
    assert not await GuestAgent(short_dir / "nobody").freeze()
    async with await asyncio.start_unix_server(Agent(frozen=0).serve, short_dir / "none"):
        assert not await GuestAgent(short_dir / "none").freeze()
    deaf = Agent(silent_to="guest-sync")
    async with await asyncio.start_unix_server(deaf.serve, short_dir / "deaf"):
        assert not await GuestAgent(short_dir / "deaf").freeze()
        await deaf.left.wait()
    assert deaf.heard == []

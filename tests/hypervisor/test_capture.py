"""A guest at work is captured at one instant, goes on, and comes back as it was then."""

import pytest

from novacron.core.clock import SystemClock
from novacron.core.ids import new_id
from novacron.hypervisor.driver import MachineState
from novacron.migration.capture import Capture
from novacron.migration.disk_capture import BITMAP
from novacron.migration.revival import Revival
from novacron.repository.folder import FolderStore
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest
from novacron.repository.repository import Repository
from novacron.repository.writer import Writer
from support.pair import VM, console

CLOCK = SystemClock()


@pytest.fixture
def repository(tmp_path):
    return Repository.create(FolderStore(tmp_path / "repository"), Secret.none(), tmp_path / "cache")


async def captured(driver, machine, repository, name, tmp_path) -> tuple[Capture, Writer]:
    ram = driver.ram_file(VM, new_id("ram"))
    await driver.reserve_ram(ram, machine.spec.memory_bytes)
    writer = Writer(repository)
    running = await machine.state() is MachineState.RUNNING
    socket = driver.socket_dir(machine) / "out"
    capture = Capture(machine, writer, CLOCK, running=running, socket=socket, ram=ram, aside=tmp_path / "aside")
    try:
        await capture.take()
        streams = await capture.store()
    finally:
        ram.unlink()
    writer.commit(name, Manifest(CLOCK.now(), repository.chunker.name, streams))
    return capture, writer


async def revived(driver, spec, repository, name):
    revival = Revival(repository, repository.manifest(name), CLOCK, lambda _: None)
    ram = driver.ram_file(VM, new_id("ram"))
    await driver.reserve_ram(ram, spec.memory_bytes)
    await revival.memory(ram)
    machine = await driver.prepare_incoming(VM, spec, ram_path=ram, overlay=False)
    await revival.disks(machine)
    await revival.load(machine, driver.socket_dir(machine) / "in")
    await driver.settle_incoming(machine)
    return machine


@pytest.mark.xdist_group("qemu-1")
async def test_a_guest_at_work_is_captured_goes_on_and_comes_back(hypervisor, repository, tmp_path):
    driver = hypervisor.make("a")
    spec = await driver.create(VM, hypervisor.guest)
    machine = await driver.start(VM)
    async with console(machine) as guest:
        before = (await guest.wait_for("t"))["records"]
    capture, writer = await captured(driver, machine, repository, "one", tmp_path)
    assert await machine.state() is MachineState.RUNNING
    assert capture.downtime_ms > 0
    assert await machine.bitmaps_like(BITMAP) == []
    async with console(machine) as guest:
        found = await guest.check("after")
        while (later := await guest.wait_for("t"))["records"] <= before + 1:
            pass
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    again, second = await captured(driver, machine, repository, "two", tmp_path)
    assert again.downtime_ms > 0
    assert second.written.new_bytes < 0.5 * writer.written.read_bytes
    async with console(machine) as guest:
        end = (await guest.check("end"))["records"]
    await machine.kill()

    old = await revived(driver, spec, repository, "one")
    assert await old.state() is MachineState.PAUSED
    await old.resume()
    async with console(old) as guest:
        first = await guest.wait_for("t")
        found = await guest.check("back")
    assert before <= first["records"] < end
    assert first["kept"] == 0  # it has not booted again
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert later["records"] > before

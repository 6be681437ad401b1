"""The memory goes straight from QEMU to QEMU: whole, in nobody's sight, and back where it was when it breaks."""

import asyncio
import hashlib

import pytest

from novacron.core.units import MIB
from novacron.hypervisor.errors import QemuDiedError
from novacron.hypervisor.qemu.link_key import LinkKey
from novacron.hypervisor.qemu.machine import QemuMachine
from novacron.migration.errors import QemuFailedError
from novacron.migration.meter import Meter
from novacron.protocol.migration import MigrationPolicy
from support.capture import capturing
from support.pair import Pair, console, small_spec

pytestmark = pytest.mark.xdist_group("qemu-1")
NATIVE = MigrationPolicy(strategy="native", streams=2)
PIECE = 32  # bytes: long enough to be no chance
PLACES = range(17 << 20, 27 << 20, 64 << 10)  # of the kernel and what it has read: it lies still


async def whole(machine) -> None:
    async with console(machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)


async def test_a_guest_at_work_arrives_whole_and_its_ram_file_is_its_own(make_driver, short_dir):
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    there = await pair.move(machine, "b", 2, policy=NATIVE)
    await whole(there.machine)
    assert there.journal.index("ready") < there.journal.index("commit") < there.journal.index("run")
    assert there.source.shadow is None  # nobody knows what its RAM was as it arrived
    assert there.summary.verified
    assert there.summary.split.zero_bytes > 0
    assert there.summary.wire_bytes > there.summary.ram_wire_bytes > machine.spec.memory_bytes / 2
    for machine_of in (machine, there.machine):
        assert not list(machine_of.run_dir.glob("link-*"))  # the key is gone
    await machine.quit()
    back = await pair.move(there.machine, "a", 3)  # by stream again, against nothing
    await whole(back.machine)


async def relayed(monkeypatch, capture) -> None:
    """A relay before the port at which a QEMU waits."""
    listen = QemuMachine.listen_direct

    async def behind(self, *args) -> int:
        return int((await capture.front(await listen(self, *args))).rpartition(":")[2])

    monkeypatch.setattr(QemuMachine, "listen_direct", behind)


async def share_seen(make_driver, directory, monkeypatch) -> float:
    """Of pieces of the guest's memory, how many crossed as they are."""
    directory.mkdir()
    async with capturing() as capture:
        await relayed(monkeypatch, capture)
        pair = Pair(make_driver, directory)
        machine = await pair.boot(small_spec())
        pieces = [piece for piece in await machine.peek(PLACES, PIECE) if len(set(piece)) > PIECE // 2]
        there = await pair.move(machine, "b", 2, policy=NATIVE)
        assert await there.machine.peek([PLACES[0]], PIECE)
        assert capture.size > there.summary.ram_wire_bytes
        await machine.kill()
        await there.machine.kill()
        return sum(map(capture.saw, pieces)) / len(pieces)


async def test_nothing_of_a_guest_crosses_in_clear(make_driver, short_dir, monkeypatch):
    assert await share_seen(make_driver, short_dir / "hidden", monkeypatch) == 0


async def test_the_same_look_finds_a_guest_that_is_not_hidden(make_driver, short_dir, monkeypatch):
    qmp = QemuMachine.qmp

    async def in_clear(self, command, **arguments):
        arguments.pop("tls_creds", None)
        return await qmp(self, command, **arguments)

    monkeypatch.setattr(QemuMachine, "qmp", in_clear)
    assert await share_seen(make_driver, short_dir / "clear", monkeypatch) > 0.9


async def test_another_key_opens_nothing_and_the_guest_runs_on(make_driver, short_dir, monkeypatch):
    write = LinkKey.write

    def its_own(run_dir, key) -> LinkKey:
        return write(run_dir, hashlib.sha256(key + bytes(run_dir)).digest())

    monkeypatch.setattr(LinkKey, "write", its_own)
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    with pytest.raises((QemuFailedError, QemuDiedError)):
        await pair.move(machine, "b", 2, policy=NATIVE)
    await pair.take_back(machine)
    await whole(machine)


@pytest.mark.parametrize("point", ["memory", "switchover", "ready"])
async def test_a_connection_that_breaks_gives_the_guest_back(make_driver, short_dir, monkeypatch, point):
    """What is on its way between the QEMUs stays there, and nobody says so; then the channel goes."""
    pair = Pair(make_driver, short_dir)
    machine = await pair.boot(small_spec())
    reached = asyncio.Event()
    _when(monkeypatch, point, reached)
    async with capturing() as capture, asyncio.timeout(60):
        await relayed(monkeypatch, capture)
        moving = asyncio.create_task(pair.move(machine, "b", 2, policy=NATIVE))
        await reached.wait()
        with capture.held():
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            await pair.take_back(machine)
        await whole(machine)
        for target in await pair.drivers["b"].adopt(machine.vm_id):
            await target.kill()
        again = await pair.move(machine, "b", 3, policy=NATIVE)
        await whole(again.machine)


def _when(monkeypatch, point: str, reached: asyncio.Event) -> None:
    """Tell when some memory has crossed, or the source comes to a phase."""

    def assign(self, name, value) -> None:
        object.__setattr__(self, name, value)
        if (name == "phase" and value == point) or (name == "ram" and point == "memory" and value.wire_bytes > MIB):
            reached.set()

    monkeypatch.setattr(Meter, "__setattr__", assign)

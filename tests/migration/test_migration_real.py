"""A real guest under QEMU moves while it runs, and would notice one wrong byte."""

import pytest

from support.pair import VM, console, small_spec


@pytest.mark.xdist_group("qemu-1")
async def test_a_running_guest_moves_there_and_comes_back_for_almost_nothing(pair):
    driver = pair.drivers["a"]
    await driver.create(VM, small_spec())
    machine = await driver.start(VM)
    async with console(machine) as guest:
        await guest.wait_for("ready")
        await guest.wait_for("t")

    there = await pair.move(machine, "b", 2)
    assert there.journal == ["ready", "commit", "run"]
    assert there.summary.verified
    async with console(there.machine) as guest:
        found = await guest.check("there")
    assert (found["errors"], found["lost"], found["doubled"]) == (0, 0, 0)
    assert found["pages"] == 2048 + 8192

    image = pair.directory / "old.ram"
    image.write_bytes(there.source.shadow)
    await machine.quit()
    back = await pair.move(there.machine, "a", 3, ram_image=there.ram, old_image=image, known_state="mig-2")
    async with console(back.machine) as guest:
        found_back = await guest.check("back")
    assert found_back["errors"] == 0
    assert found_back["records"] >= found["records"]
    assert back.summary.wire_bytes < 0.05 * back.summary.guest_bytes

"""Two sites of real processes, worked with as a user does: by the command line."""

import asyncio
import json
import os
import pty
import subprocess
import tempfile
import termios
from pathlib import Path

import pytest
import pytest_asyncio

from novacron.launch.chaos.qemus import living
from novacron.launch.chaos.sites import VM, state_of, until
from novacron.launch.demo.site import NOVACRON
from novacron.launch.main import run
from support.commands import line_with, started
from support.wreck import halting_sites

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("qemu-2"), pytest.mark.asyncio(loop_scope="module")]
USAGE, NOT_FOUND, CONFLICT = 2, 3, 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sites(guest_files, accelerator_file):
    with tempfile.TemporaryDirectory(prefix="nc-") as directory:
        async with halting_sites(Path(directory), guest_files, accelerator_file) as sites:
            yield sites


@pytest.fixture
def novacron(sites, monkeypatch, capsys):
    """Runs a command at the VM's home, or at ``context``: its exit code, what it printed, what it complained of."""
    monkeypatch.setenv("NOVACRON_CONFIG_DIR", str(sites.home.directory.parent / "config"))

    async def command(*words: str, context: str = "") -> tuple[int, str, str]:
        at = context or sites.home.name
        code = await asyncio.to_thread(run, [*words, "--context", at])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    async def document(*words: str, context: str = ""):
        code, out, err = await command(*words, "--output", "json", context=context)
        assert code == 0, err
        return json.loads(out)

    command.json = document
    return command


async def test_nodes_peers_and_vms_are_listed(novacron):
    assert [node["state"] for node in await novacron.json("node", "list")] == ["ready"]
    assert [peer["name"] for peer in await novacron.json("federation", "list")] == ["b"]
    shown = await novacron.json("vm", "show", VM)
    assert (shown["state"], shown["spec"]["disks"][0]["id"]) == ("running", "disk0")
    code, out, _ = await novacron("vm", "list")
    assert code == 0
    assert out.splitlines()[0].split()[:2] == ["NAME", "STATE"]
    node = await novacron.json("node", "show", "a-node")
    assert node["capabilities"]["accelerator"] in {"tcg", "kvm"}
    assert {image["name"] for image in await novacron.json("image", "list")} == {
        "demo-kernel",
        "demo-initrd",
        "demo-disk",
    }


async def test_a_vm_is_paused_and_goes_on(novacron):
    assert (await novacron("vm", "pause", VM))[0] == 0
    assert (await novacron.json("vm", "show", VM))["state"] == "paused"
    assert (await novacron("vm", "resume", VM))[0] == 0
    assert (await novacron.json("vm", "show", VM))["state"] == "running"


async def test_a_migration_is_followed_as_lines_of_json_and_rolled_back_in_its_window(sites, novacron):
    code, out, err = await novacron("migrate", VM, "--to", "b", "--verify-window", "10min", "--follow")
    assert code == 0, err
    seen = [json.loads(line) for line in out.splitlines()]
    assert seen[-1]["outcome"] == "succeeded"
    done = [one["progress"]["done_bytes"] for one in seen]
    assert done == sorted(done)
    listed = await novacron.json("migration", "list", context="a")
    assert [(one["direction"], one["phase"]) for one in listed] == [("outgoing", "window")]
    arrived = await novacron.json("migration", "list", context="b")
    assert [(one["direction"], one["outcome"]) for one in arrived] == [("incoming", "succeeded")]
    code, out, err = await novacron("migration", "rollback", seen[-1]["id"], context="a")
    assert code == 0, err
    assert (await novacron.json("vm", "show", VM, context="a"))["state"] == "running"
    shown = await novacron.json("migration", "show", seen[-1]["id"], context="a")
    assert shown["outcome"] == "rolled_back"
    assert await sites.verdict("rolled-back") == {"errors": 0, "lost": 0, "doubled": 0}


async def test_an_operator_takes_a_vm_over_and_the_other_side_stands_down(sites, novacron):
    begun = await novacron.json("migrate", VM, "--to", "b", "--verify-window", "10min")
    assert (await novacron("migration", "watch", begun["id"]))[0] == 0
    code, _, err = await novacron("vm", "take-over", VM, "--attest", "too short", context="a")
    assert code == USAGE
    assert "attestation" in err
    code, out, err = await novacron("vm", "take-over", VM, "--attest", "site b has burned down", context="a")
    assert code == 0, err
    assert "is this cluster's again" in out
    assert (await novacron.json("vm", "show", VM, context="a"))["state"] == "running"
    shown = await novacron.json("migration", "show", begun["id"], context="a")
    assert (shown["outcome"], shown["attestation"]) == ("taken_over", "site b has burned down")
    assert await sites.verdict("taken-over") == {"errors": 0, "lost": 0, "doubled": 0}
    await until(lambda: not state_of(sites.away), "the other side has stood down")
    assert living(sites.away) == []


async def test_a_migration_is_cancelled_and_the_vm_stays(novacron):
    begun = await novacron.json("migrate", VM, "--to", "b", "--bandwidth", "1Mbit/s")
    code, _, err = await novacron("migration", "cancel", begun["id"])
    assert code == 0, err
    code, out, _ = await novacron("migration", "watch", begun["id"])
    assert code != 0
    assert json.loads(out.splitlines()[-1])["outcome"] == "cancelled"
    assert (await novacron.json("vm", "show", VM))["state"] == "running"


async def test_a_vm_grows_while_it_is_off_and_is_removed(novacron):
    made = await novacron.json("vm", "create", "small", "--memory", "64MiB", "--disk", "16MiB", "--no-start")
    assert made["state"] == "stopped"
    words = ("--vcpus", "2", "--memory", "128MiB", "--disk", "disk0=32MiB")
    assert (await novacron("vm", "resize", "small", *words))[0] == 0
    spec = (await novacron.json("vm", "show", "small"))["spec"]
    assert (spec["vcpus"], spec["disks"][0]["size_bytes"]) == (2, 32 << 20)
    assert 128 << 20 >= spec["memory_bytes"] >= (128 << 20) - 8192
    code, _, err = await novacron("vm", "resize", "small", "--disk", "disk0=16MiB")
    assert code == USAGE
    assert "a disk only grows" in err
    assert (await novacron("vm", "start", "small"))[0] == 0
    code, _, err = await novacron("vm", "delete", "small")
    assert code == CONFLICT
    assert "novacron vm stop small" in err
    assert (await novacron("vm", "stop", "small", "--force"))[0] == 0
    assert (await novacron("vm", "delete", "small"))[0] == 0
    assert (await novacron("vm", "show", "small"))[0] == NOT_FOUND


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "said"),
    [
        (("vm", "show", "nobody"), NOT_FOUND, "not_found", "novacron vm list"),
        (("migrate", "nobody", "--to", "b"), NOT_FOUND, "not_found", "novacron vm list"),
        (("migrate", VM, "--to", "mars"), NOT_FOUND, "peer_unknown", "novacron federation list"),
        (("vm", "create", "big", "--memory", "900GiB", "--disk", "1GiB"), CONFLICT, "no_room", "novacron node list"),
        (("vm", "create", "odd", "--memory", "1000", "--disk", "1GiB"), USAGE, "invalid_input", "at least 16 MiB"),
        (
            ("vm", "create", "old", "--memory", "64MiB", "--disk", "1GiB", "--machine", "pc-q35-99.9"),
            CONFLICT,
            "no_room",
            "pc-q35-99.9",
        ),
        (("image", "delete", "nothing"), NOT_FOUND, "not_found", "novacron image list"),
        (("vm", "create", VM, "--memory", "64MiB", "--disk", "1GiB"), CONFLICT, "name_taken", VM),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_code_and_a_next_command(novacron, words, exit_code, code, said):
    status, _, err = await novacron(*words)
    assert (status, f"code: {code}" in err, said in err) == (exit_code, True, True), err


async def test_a_wrong_token_says_where_the_right_one_is(sites, novacron):
    contexts = sites.home.directory.parent / "config" / "contexts"
    text = (contexts / f"{sites.home.name}.toml").read_text()
    (contexts / "thief.toml").write_text(text.replace(sites.home.token, "guessed"))
    status, _, err = await novacron("vm", "list", context="thief")
    (contexts / "thief.toml").unlink()
    assert status != 0
    assert "next: " in err


async def test_the_console_of_the_guest_is_in_the_terminal(sites):
    environment = {"NOVACRON_CONFIG_DIR": str(sites.home.directory.parent / "config"), "PATH": "/usr/bin:/bin"}
    command = [*NOVACRON, "vm", "console", VM]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--context",
        sites.home.name,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    out, _ = await process.communicate(b"check terminal\n")
    assert process.returncode == 0
    assert b'"check":"terminal"' in out


async def test_on_a_terminal_the_console_is_raw_and_left_by_its_key(sites):
    environment = {**os.environ, "NOVACRON_CONFIG_DIR": str(sites.home.directory.parent / "config")}
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = await asyncio.create_subprocess_exec(
        *NOVACRON,
        "vm",
        "console",
        VM,
        "--context",
        sites.home.name,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )

    def until_said(text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            seen += os.read(ours, 4096)
        return seen

    try:
        async with asyncio.timeout(60):
            await asyncio.to_thread(until_said, b"Ctrl-] leaves")
            await asyncio.to_thread(until_said, b'"t":')
            os.write(ours, b"check typed\n")
            said = await asyncio.to_thread(until_said, b'"check":"typed"')
            os.write(ours, b"\x1d")
            assert await process.wait() == 0
        assert b"check typed" not in said  # the terminal does not echo: the guest would
        assert termios.tcgetattr(theirs) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        os.close(theirs)


async def test_a_saved_controller_is_restored_by_command_and_serves_what_it_knew(
    novacron, tmp_path, monkeypatch, capsys
):
    saved, restored = tmp_path / "saved.tar", tmp_path / "restored"
    code, _, err = await novacron("controller", "save", str(saved))
    assert code == 0, err
    assert saved.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("NOVACRON_CONTROLLER_DATA_DIR", str(restored))
    assert await asyncio.to_thread(run, ["controller", "restore", str(saved)]) == 0
    assert f"--data-dir {restored}" in capsys.readouterr().out
    assert await asyncio.to_thread(run, ["controller", "restore", str(saved)]) == USAGE
    assert "is not empty" in capsys.readouterr().err

    config = {"NOVACRON_CONFIG_DIR": str(tmp_path / "config")}
    words = ("controller", "--data-dir", str(restored), "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0")
    async with started(*words, **config) as again:
        await line_with(again, "page and API at")
        monkeypatch.setenv("NOVACRON_CONFIG_DIR", config["NOVACRON_CONFIG_DIR"])
        code = await asyncio.to_thread(run, ["vm", "show", VM, "--output", "json"])
        known = json.loads(capsys.readouterr().out)
    assert (code, known["name"]) == (0, VM)

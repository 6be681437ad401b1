"""The commands that start whole clusters, as a user starts them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.launch.main import run
from support.commands import SLOW_S, line_with, started

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("qemu-1")]
FAST = ("--link", "1Gbit/s", "--delay", "2ms")


async def test_the_demo_compares_with_stock_qemu_and_says_all_of_it_as_json():
    async with started("demo", *FAST, "--compare", "--output", "json") as demo:
        async with asyncio.timeout(SLOW_S):
            out = await demo.stdout.read()
        assert await demo.wait() == 0, out.decode()
    told = json.loads(out)
    there, back = told["there"], told["back"]
    assert told["verified"]
    assert (there["source"], there["target"], back["source"], back["target"]) == (
        "site-a",
        "site-b",
        "site-b",
        "site-a",
    )
    assert there["errors"] == back["errors"] == 0
    assert back["wire_bytes"] < 0.05 * back["guest_bytes"]
    assert there["literal_bytes"] > there["compressed_wire_bytes"] > 0
    assert [peer["name"] for peer in told["stock"]] == ["stock plain", "stock multifd+zstd"]
    assert all(peer["errors"] == 0 for peer in told["stock"])
    assert "namespaces" in told["lab"]


async def test_a_node_that_is_killed_in_the_middle_of_the_demo_costs_nothing():
    async with started("demo", *FAST) as demo:
        address = re.search(r"http://[\d.:]+", await line_with(demo, "site-b: http"))[0]
        assert address
        await line_with(demo, "copying")
        os.kill(node_of("site-b", demo.pid), signal.SIGKILL)
        assert "it is started again" in await line_with(demo, "has ended")
        assert ", 0 wrong" in await line_with(demo, "arrived and verified")
        assert ", 0 wrong" in await line_with(demo, "arrived and verified")
        await line_with(demo, "on the wire")
        async with asyncio.timeout(60):
            await demo.stdout.read()
        assert await demo.wait() == 0


def node_of(site: str, parent: int) -> int:
    """The process id of a site's node, among the children of the demo."""
    found = subprocess.run(
        ["pgrep", "--parent", str(parent), "--full", f"node .*--name {site}-node"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[0])


async def test_a_whole_cluster_on_one_machine_starts_answers_and_ends(tmp_path, monkeypatch, accelerator_file):
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "accelerator.json").write_bytes(accelerator_file.read_bytes())
    places = ("--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0", "--api", "127.0.0.1:0")
    config = {"NOVACRON_CONFIG_DIR": str(tmp_path / "config")}
    async with started("up", "--data-dir", str(tmp_path), "--cluster", "home", *places, **config) as up:
        await line_with(up, "novacron vm list")
        monkeypatch.setenv("NOVACRON_CONFIG_DIR", config["NOVACRON_CONFIG_DIR"])
        assert await asyncio.to_thread(run, ["node", "list"]) == 0
        up.terminate()
        assert await up.wait() == 0
    async with started("up", "--data-dir", str(tmp_path), *places, **config) as again:
        assert "cluster home" in await line_with(again, "cluster")
        await line_with(again, "novacron vm list")
        async with started("up", "--data-dir", str(tmp_path), *places, **config) as third:
            assert "in use by process" in await line_with(third, "error:")
            async with asyncio.timeout(20):
                out = (await third.stdout.read()).decode()
            assert "code: folder_in_use" in out
            assert await third.wait() == 5


async def test_every_address_of_a_host_is_no_address(tmp_path):
    async with started(
        "controller", "--data-dir", str(tmp_path), "--listen", "0.0.0.0:0", "--api", "127.0.0.1:0"
    ) as one:
        assert "every address of this host" in await line_with(one, "error:")
        assert "--advertise" in (await one.stdout.read()).decode()
        assert await one.wait() == 2


@pytest.mark.soak
async def test_the_benchmark_compares_with_a_peer_and_shows_a_second_vm_and_an_outage():
    words = ("bench", "migration", "--workload", "idle", "--runs", "1", "--link", "2Gbit/s", "--delay", "1ms")
    chosen = ("--peer", "multifd+zstd", "--case", "second-vm", "--case", "resume")
    async with started(*words, *chosen, "--output", "json") as bench:
        async with asyncio.timeout(SLOW_S):
            out = await bench.stdout.read()
        assert await bench.wait() == 0, out.decode()
    told = json.loads(out)
    (compared,) = told["comparisons"]
    by_name = {one["contender"]: one for one in compared["standings"]}
    ours, back, second, resumed, peer = by_name.values()
    assert [one["outcome"] for one in by_name.values()] == ["moved"] * 5, by_name
    assert peer["contender"] == compared["fastest_peer"] == compared["leanest_peer"] == "stock multifd+zstd"
    assert ours["bytes_ratio"] == ours["link_bytes"] / peer["link_bytes"]
    assert back["share"] < 0.05
    assert second["share"] < 0.5  # its disk is there
    assert 0.5 < resumed["share"] < 1.4
    assert sum(run["errors"] for run in told["runs"]) == 0


def test_doctor_tries_what_there_is(capsys):
    assert run(["doctor", "--output", "json"]) == 0
    found = {check["what"]: check["state"] for check in json.loads(capsys.readouterr().out)}
    assert found["QEMU"] == "ok"
    assert found["accelerator"] in {"ok", "warn"}
    assert found["demo's link"] == "ok"


def test_doctor_says_what_to_install_and_fails(capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert run(["doctor", "--output", "json"]) == 1
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["QEMU"]["state"] == "fail"
    assert "apt-get install" in found["QEMU"]["next_command"]
    assert found["demo's guest"]["next_command"] == "./up --check"


def test_doctor_names_ports_that_are_taken_and_addresses_that_are_none(capsys, monkeypatch):
    monkeypatch.setenv("NOVACRON_CONTROLLER_API", "nonsense")
    run(["doctor", "--output", "json"])
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["port of the API"]["state"] == "fail"

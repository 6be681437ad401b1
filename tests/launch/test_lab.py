"""The lab's link: what is sent arrives, never faster than the link allows, and is counted."""

import asyncio
import os
import subprocess
import sys

import pytest

from novacron.launch.lab.lab import crossed, open_lab
from novacron.launch.lab.link import Link
from novacron.launch.lab.namespaces import FOLDER, PREFIX, NamespaceLab, remove_leftovers
from novacron.launch.lab.relay import RelayLab

SITES = ("a", "b")
SENT = bytes(range(256)) * 4096  # 1 MiB
SERVE = """
import socket, sys
host, port = sys.argv[1].rsplit(":", 1)
with socket.create_server((host, int(port))) as server:
    print("listens", flush=True)
    connection, _ = server.accept()
    data = b""
    while piece := connection.recv(65536):
        data += piece
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
"""
CALL = """
import socket, sys, time
host, port = sys.argv[1].rsplit(":", 1)
data = bytes(range(256)) * 4096
began = time.monotonic()
with socket.create_connection((host, int(port))) as connection:
    connected = time.monotonic()
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    back = b""
    while piece := connection.recv(65536):
        back += piece
print(back == data, connected - began, time.monotonic() - connected)
"""


async def exchange(lab) -> tuple[bool, float, float]:
    """Send a MiB from a to b and back: whether it was whole, seconds to connect, seconds for the rest."""
    listen, advertise = lab.listen("b", "stock-ram")
    pipes = {"env": dict(os.environ), "pass_fds": (), "stdout": subprocess.PIPE}
    server = await lab.start("b", (sys.executable, "-c", SERVE, listen), **pipes)
    await server.stdout.readline()
    caller = await lab.start("a", (sys.executable, "-c", CALL, advertise or listen), **pipes)
    whole, connect_s, rest_s = (await caller.stdout.read()).split()
    assert (await caller.wait(), await server.wait()) == (0, 0)
    return whole == b"True", float(connect_s), float(rest_s)


@pytest.mark.root
async def test_packets_are_delayed_paced_and_counted_in_both_directions():
    async with open_lab(Link(rate_bytes_s=4_000_000, delay_ms=15), SITES) as lab:
        assert isinstance(lab, NamespaceLab)
        whole, connect_s, rest_s = await exchange(lab)
        there, back = lab.counters()
        assert whole
        assert connect_s >= 0.030
        assert rest_s >= len(SENT) / 4_000_000 + 0.030
        assert len(SENT) < there.bytes < 1.1 * len(SENT)
        assert len(SENT) < back.bytes < 1.1 * len(SENT)
        assert crossed(lab) == there.bytes + back.bytes
        assert (there.dropped, back.dropped) == (0, 0)
    assert not list(FOLDER.glob(f"{PREFIX}-{os.getpid()}-*"))


@pytest.mark.root
async def test_lost_packets_are_counted_and_sent_again():
    async with open_lab(Link(rate_bytes_s=50_000_000, delay_ms=1, jitter_ms=1, loss=0.02, seed=3), SITES) as lab:
        whole, _, _ = await exchange(lab)
        there, back = lab.counters()
    assert whole
    assert there.dropped + back.dropped > 0


async def test_without_namespaces_a_relay_of_bytes_does_the_same_and_says_so():
    link = Link(rate_bytes_s=4_000_000, delay_ms=15)
    async with RelayLab.running(link, SITES, "network namespaces need root") as lab:
        whole, _, rest_s = await exchange(lab)
        there, back = lab.counters()
    assert whole
    assert "TCP relay" in lab.note
    assert "need root" in lab.note
    assert rest_s >= len(SENT) / 4_000_000 + 0.030
    assert (there.bytes, back.bytes) == (len(SENT), len(SENT))


async def not_while_cut(lab) -> None:
    """What is sent while the link is cut arrives once it is mended."""
    async with lab.cut():
        exchanging = asyncio.create_task(exchange(lab))
        done, _ = await asyncio.wait({exchanging}, timeout=1.0)
        assert not done
    whole, _, _ = await exchanging
    assert whole


@pytest.mark.root
async def test_no_packet_crosses_a_link_that_is_cut():
    async with open_lab(Link(rate_bytes_s=50_000_000, delay_ms=1), SITES) as lab:
        await not_while_cut(lab)


async def test_no_byte_crosses_a_relay_that_is_cut():
    async with RelayLab.running(Link(rate_bytes_s=50_000_000, delay_ms=1), SITES, "why") as lab:
        await not_while_cut(lab)


async def test_another_user_gets_the_relay(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    async with open_lab(Link(1_000_000), SITES) as lab:
        assert isinstance(lab, RelayLab)


@pytest.mark.root
async def test_namespaces_of_a_maker_that_died_are_removed():
    maker = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await maker.wait()
    name = f"{PREFIX}-{maker.pid}-a"
    await asyncio.to_thread(subprocess.run, ["ip", "netns", "add", name], check=True)
    remove_leftovers()
    assert not (FOLDER / name).exists()


def test_the_queue_has_room_for_a_round_trip():
    assert Link(25_000_000, delay_ms=100).queue_bytes == 5_000_000
    assert Link(1000).queue_bytes == 30_000


def test_a_link_is_described_with_all_that_is_wrong_with_it():
    assert Link(1000, delay_ms=20).described == "20 ms each way"
    assert Link(1000, 20, jitter_ms=5, loss=0.001).described == "20 ms each way, 5 ms of jitter, 0.10% of packets lost"

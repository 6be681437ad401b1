"""Memory of processes, as the benchmark reports it."""

import asyncio
import mmap
import os
import subprocess
import sys

import pytest

from novacron.core.units import MIB
from novacron.launch.bench.footprint import Footprint, anonymous_bytes, footprint

HOLDER = """
import sys
for line in sys.stdin:
    held = bytearray(int(line)) if int(line) else b""
    print(flush=True)
"""


def test_pages_of_a_file_are_not_memory_of_a_process_own(tmp_path):
    path = tmp_path / "shadow"
    path.write_bytes(bytes(64 * MIB))
    before = anonymous_bytes(os.getpid())
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert sum(mapped[at] for at in range(0, 64 * MIB, 4096)) == 0
        assert anonymous_bytes(os.getpid()) - before < 16 * MIB


@pytest.fixture
def holder():
    """A process that holds as many bytes as it is told."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def hold(size):
            process.stdin.write(b"%d\n" % size)
            process.stdin.flush()
            process.stdout.readline()

        yield process.pid, hold
        process.stdin.close()


def test_what_counts_is_the_most_that_the_larger_one_held(holder):
    pid, hold = holder
    found = Footprint([os.getppid(), pid])
    hold(256 * MIB)
    found.look()
    peak = found.peak_bytes
    hold(0)
    found.look()
    assert 256 * MIB <= peak == found.peak_bytes < 512 * MIB


async def test_it_is_watched_for_as_long_as_the_context_lasts(holder):
    pid, hold = holder
    async with footprint(pid) as found, asyncio.timeout(20):
        await asyncio.to_thread(hold, 256 * MIB)
        while found.peak_bytes < 256 * MIB:  # noqa: ASYNC110 - another task looks
            await asyncio.sleep(0)

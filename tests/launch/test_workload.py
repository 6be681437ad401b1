"""The demo guest's workload, run on this host in a folder of its own: its checker is what every figure rests on."""

import asyncio
import re
import sqlite3
import subprocess
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from novacron.launch.guest import accounts
from novacron.launch.guest.build import compile_workload
from novacron.launch.guest.console import WorkloadConsole
from novacron.launch.guest.workloads import WORKLOADS, kernel_arguments

pytestmark = pytest.mark.root  # chroot
PAGE = 4096
SMALL = ("novacron.hot=256", "novacron.cold=256", "novacron.rate=2000", "novacron.records=50")  # the last word counts
FIELDS = ("errors", "wrong_pages", "lost", "doubled", "wrong_records", "wrong_digests", "wrong_rows")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    compile_workload(tmp_path_factory.mktemp("work"), root / "workload")
    return root / "workload"


@asynccontextmanager
async def at_work(program: Path, data: Path, workload: str):
    """The workload on the files in ``data``: its console and its process id; it has written for a second."""
    data.rename(program.parent / "data")
    command = ("chroot", program.parent, "/workload", *kernel_arguments(workload, 7).split(), *SMALL)
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        console = WorkloadConsole(process.stdout, process.stdin)
        assert (await console.wait_for("t"))["pages_dirtied"] > 0
        yield console, process.pid
    finally:
        process.kill()
        await process.wait()
        (program.parent / "data").rename(data)


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/file").write_bytes(bytes(range(256)) * 300)
    accounts.fill(folder / accounts.NAME, rows=500)
    return folder


@pytest.mark.parametrize("workload", WORKLOADS)
async def test_a_workload_finds_itself_whole_and_then_the_one_byte_that_is_not(program, data, workload):
    async with at_work(program, data, workload) as (console, pid):
        found = await console.check("whole")
        assert [found[name] for name in FIELDS] == [0] * len(FIELDS)
        assert (found["pages"], found["records"] > 1) == (512, True)
        await console._say("rate 0")
        await console.wait_for("rate")
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            at = pages_at(pid) + 300 * PAGE + PAGE // 2
            memory.seek(at)
            byte = memory.read(1)
            memory.seek(at)
            memory.write(bytes([byte[0] ^ 1]))
        found = await console.check("broken")
    assert (found["wrong_pages"], found["errors"]) == (1, 1)


async def test_a_file_that_is_not_what_was_read_is_found_in_the_cache_and_on_the_disk(program, data):
    async with at_work(program, data, "page-cache") as (console, _):
        with (program.parent / "data/deep/file").open("r+b") as file:
            file.seek(70_000)
            file.write(b"x")
        found = await console.check("broken")
    assert (found["wrong_digests"], found["errors"]) == (2, 2)


async def test_a_transaction_that_is_missing_and_a_row_that_changed_are_found(program, data):
    async with at_work(program, data, "database") as (console, _):
        assert (await console.wait_for("t"))["transactions"] > 0
        with closing(sqlite3.connect(program.parent / "data" / accounts.NAME)) as other, other:
            other.execute("DELETE FROM transfer WHERE id = 1")
            other.execute("UPDATE account SET text = text || 'x' WHERE id = 7")
        found = await console.check("broken")
    assert (found["wrong_rows"], found["errors"]) == (4, 4)  # both, in the cache and on the disk


def test_the_database_is_the_same_each_time(tmp_path):
    for name in ("one", "two"):
        accounts.fill(tmp_path / name, rows=50)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert accounts.mark(b"") == 0xCBF29CE484222325 & 0x7FFFFFFFFFFFFFFF


def pages_at(pid: int) -> int:
    """Where the largest anonymous mapping begins: the pages of the workload, beside each other."""
    unnamed = re.findall(r"^(\w+)-(\w+) rw-p \S+ \S+ 0 *$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    return max((int(end, 16) - int(begin, 16), int(begin, 16)) for begin, end in unnamed)[1]

"""Programs of a node's operator: which there are, and how one ends."""

import asyncio
import os
from pathlib import Path

import pytest

from novacron.agent import programs


@pytest.fixture
def put(tmp_path):
    def put(name: str, script: str, mode: int = 0o700) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    return put


async def test_only_executable_files_of_the_folder_itself_are_programs(tmp_path, put):
    for name in ("b", "a", ".hidden"):
        put(name, "")
    put("data", "", 0o600)
    (tmp_path / "folder").mkdir()
    put("folder/inside", "")
    assert programs.names(tmp_path) == ["a", "b"]
    assert [programs.names(None), programs.names(tmp_path / "missing")] == [[], []]
    assert programs.find(tmp_path, "a") == tmp_path / "a"
    for name in ("", "data", "folder", "folder/inside", f"../{tmp_path.name}/a", ".hidden", str(tmp_path / "a")):
        assert programs.find(tmp_path, name) is None
    assert programs.find(None, "a") is None


async def test_the_last_line_is_told_and_the_exit_code_decides(put, monkeypatch):
    monkeypatch.setenv("NOVACRON_SECRET", "kept to itself")
    said = put("said", 'echo one; echo "$FACT$NOVACRON_SECRET" >&2; echo')
    assert await programs.run(said, {"FACT": "told"}, 30) == programs.Ended(succeeded=True, line="told")
    assert await programs.run(put("silent", ""), {}, 30) == programs.Ended(succeeded=True, line="")
    assert await programs.run(put("wrong", "exit 3"), {}, 30) == programs.Ended(succeeded=False, line="exit code 3")
    long = await programs.run(put("long", "head -c 300000 /dev/zero | tr '\\0' x"), {}, 30)
    assert long.line == "x" * programs.LINE_BYTES


async def test_what_is_no_program_cannot_be_started(put):
    path = put("binary", "")
    path.write_bytes(b"\0not a program")
    ended = await programs.run(path, {}, 30)
    assert (ended.succeeded, ended.line) == (False, "it cannot be started: Exec format error")


async def test_a_program_ends_with_all_that_it_started_when_its_time_is_over_or_nobody_waits(tmp_path, put):
    pids = tmp_path / "pids"
    slow = put("slow", f"sleep 600 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait")
    ended = await programs.run(slow, {}, 0.5)
    assert (ended.succeeded, ended.line) == (False, "it did not end within 0.5 s")
    await gone(pids)
    pids.unlink(missing_ok=True)
    running = asyncio.create_task(programs.run(slow, {}, 600))
    while not pids.exists():  # noqa: ASYNC110 - the program says that it has begun
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await gone(pids)


async def gone(pids: Path) -> None:
    for pid in pids.read_text().split() if pids.exists() else ():
        async with asyncio.timeout(10):
            while running(pid):  # noqa: ASYNC110 - a killed process is collected by its parent
                await asyncio.sleep(0.01)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" and os.getpid() != int(pid)
    except OSError:
        return False

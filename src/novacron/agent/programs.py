"""Programs of the node's operator: executable files in a folder of the node's settings, and nothing else.

Whoever speaks to the node names one of them; no command line comes over the network. A program is given facts in its
environment, nothing on its standard input, and a limited time; what it has started ends with it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LINE_BYTES: Final = 400
OUTPUT_BYTES: Final = 65536  # at most so much of its output is looked at, the end of it
INHERITED: Final = ("PATH", "HOME", "LANG", "TZ")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; ``line`` is the last that it wrote, or why there is none."""

    succeeded: bool
    line: str


def find(folder: Path | None, name: str) -> Path | None:
    """The program of that name; None when there is none that may be executed."""
    if folder is None or not name or Path(name).name != name or name.startswith("."):
        return None
    path = folder / name
    return path if path.is_file() and os.access(path, os.X_OK) else None


def names(folder: Path | None) -> list[str]:
    """All programs in the folder, in order."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if find(folder, entry.name) is not None)


async def run(program: Path, facts: Mapping[str, str], within_s: float) -> Ended:
    """Run it once, for ``within_s`` at most; a cancellation ends it, too."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(facts)
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            env=environment,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Ended(succeeded=False, line=f"it cannot be started: {error.strerror}")
    output = bytearray()
    try:
        async with asyncio.timeout(within_s):
            await _read(process, output)
            code = await process.wait()
    except TimeoutError:
        return Ended(succeeded=False, line=f"it did not end within {within_s:.3g} s")
    finally:
        _end_group(process)
        await process.wait()
    line = _last_line(output)
    return Ended(code == 0, line if code == 0 else f"exit code {code}: {line}".removesuffix(": "))


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    while part := await process.stdout.read(OUTPUT_BYTES):
        output += part
        del output[:-OUTPUT_BYTES]


def _end_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_line(output: bytes | bytearray) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:LINE_BYTES] if lines else ""

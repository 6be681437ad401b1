"""Commands as a user starts them, their output read as it comes."""

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager

from novacron.launch.demo.site import NOVACRON

SLOW_S = 240


@asynccontextmanager
async def started(*words: str, stderr: int | None = subprocess.STDOUT, **environment: str):
    """A command whose output is read as it comes; ended with the context."""
    process = await asyncio.create_subprocess_exec(
        *NOVACRON,
        *words,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def line_with(process, text: str) -> str:
    async with asyncio.timeout(SLOW_S):
        seen = []
        while line := (await process.stdout.readline()).decode():
            seen.append(line)
            if text in line:
                return line
    raise AssertionError("".join(seen))

"""Lets a contender try, and says what became of it."""

import time
from collections.abc import Awaitable

from novacron.core.errors import NovaCronError
from novacron.launch.bench.errors import GaveUpError
from novacron.launch.bench.run import Outcome, Run
from novacron.launch.demo.errors import UnverifiedError


async def attempt(workload: str, contender: str, run: Awaitable[Run]) -> Run:
    """The run, or that there was none; raises UnverifiedError, since no figure of a guest that is not whole counts."""
    began = time.monotonic()
    try:
        return await run
    except UnverifiedError:
        raise
    except NovaCronError as error:
        outcome: Outcome = "gave up" if isinstance(error, GaveUpError) else "failed"
        passed_ms = round((time.monotonic() - began) * 1000)
        return Run(workload, contender, outcome, total_ms=passed_ms, note=error.cause)

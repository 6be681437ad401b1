"""Many runs, one after the other, unattended: on the same two sites for as long as they are sound."""

import asyncio
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from novacron.launch.chaos.draw import NOTHING, SPARE, Draw
from novacron.launch.chaos.errors import BrokenError
from novacron.launch.chaos.kept_logs import keep
from novacron.launch.chaos.sites import Sites
from novacron.launch.chaos.trial import Run, try_once
from novacron.launch.guest.build import GuestFiles
from novacron.launch.lab.link import Link

UNDISTURBED: Final = Draw(0, NOTHING, SPARE, 0.0, 0.0)


async def carry_out(
    plan: Sequence[Draw], link: Link, guest: GuestFiles, folder: Path, tell: Callable[[Run], None]
) -> list[Run]:
    """Every run of the plan. A run that ends wrong leaves its logs in ``folder``, and the next begins on new sites."""
    left, runs = deque(plan), list[Run]()
    while left:
        directory = folder / "sites"
        async with Sites.running(link, directory, guest) as sites:
            usual_s = await _usual_s(sites)
            sound = True
            while left and sound:
                run = await try_once(sites, left.popleft(), usual_s)
                runs.append(run)
                tell(run)
                sound = not run.violation
                if not sound:
                    await asyncio.to_thread(keep, sites, run, folder / f"run-{run.number}")
        await asyncio.to_thread(shutil.rmtree, directory)
    return runs


async def _usual_s(sites: Sites) -> float:
    """There and back, undisturbed: what a migration takes where the content lies at both sides."""
    for _ in range(2):
        run = await try_once(sites, UNDISTURBED, 0.0)
        if run.violation:
            raise BrokenError(f"nothing was struck yet: {run.violation}", next_command="novacron demo")
    return run.took_ms / 1000

"""One run: a migration, a strike in the middle of it, and all that must hold afterwards."""

import asyncio
import time
from typing import Any, Final

from msgspec import Struct

from novacron.cli.kinds import MIGRATIONS
from novacron.launch.chaos.cpu_watch import never_two
from novacron.launch.chaos.draw import KILL, Draw
from novacron.launch.chaos.errors import BrokenError
from novacron.launch.chaos.qemus import living, records_said
from novacron.launch.chaos.sites import Sites, until
from novacron.launch.chaos.strike import strike
from novacron.protocol.resources import Migration

LIMIT_S: Final = 240.0  # nothing that mends itself takes as long
ARRIVED: Final = frozenset({"succeeded", "unverified"})
ENDS: Final = ARRIVED | {"failed", "cancelled"}


class Run(Struct):
    """A run, as far as it has come."""

    number: int
    victim: str
    deed: str
    share: float  # of what a migration takes, before the strike
    lasts_s: float
    source: str = ""
    target: str = ""
    migration_id: str = ""
    moment_ms: int = 0  # from the request to the strike
    phase: str = ""  # as the migration's record had it then
    hit: bool = False  # there was something to strike
    outcome: str = ""  # of the first attempt
    cause: str = ""  # of its failure
    attempts: int = 0  # that the clusters made by themselves
    took_ms: int = 0  # all of them
    cold: bool = False  # its QEMU was killed, and the VM was started again
    resumed: bool = False  # it failed, and another attempt went through
    errors: int = 0  # found by the guest, like the next two
    lost: int = 0
    doubled: int = 0
    violation: str = ""


async def try_once(sites: Sites, drawn: Draw, usual_s: float) -> Run:
    """Whatever goes wrong, it is the run's ``violation``; ``usual_s`` is what a migration takes."""
    run = Run(drawn.number, drawn.victim, drawn.deed, round(drawn.share, 3), round(drawn.lasts_s, 3))
    try:
        async with asyncio.timeout(LIMIT_S), never_two(sites.home, sites.away):
            await _go(sites, drawn, usual_s, run)
    except TimeoutError:
        run.violation = f"it is not over after {LIMIT_S:.0f} s"
    except Exception as error:  # noqa: BLE001 - it goes on unattended: what is not foreseen is a violation, too
        run.violation = f"{type(error).__name__}: {error}"
    return run


async def _go(sites: Sites, drawn: Draw, usual_s: float, run: Run) -> None:
    """A migration is struck, ends, and has left the guest whole at one place; what failed goes through at last."""
    before = await sites.until_running()
    source, target = sites.home, sites.away
    run.source, run.target = source.name, target.name
    began = time.monotonic()
    run.migration_id = await sites.migrate()
    await asyncio.sleep(drawn.share * usual_s)
    run.phase = (await asyncio.to_thread(source.client.get, MIGRATIONS, run.migration_id)).value.phase
    said = max(before["records"], records_said(source), records_said(target))
    run.moment_ms = _ms_since(began)
    run.hit = await strike(sites, drawn)
    arrived = _judge_end(run, await sites.ended(run.migration_id))
    _must(arrived == (sites.home is target), f"it has {'' if arrived else 'not '}arrived, and is at {sites.home.name}")
    own_qemu = "target-qemu" if run.outcome in ARRIVED else "source-qemu"  # of the VM, when it was struck
    may_be_cold = drawn.deed == KILL and run.hit and drawn.victim == own_qemu
    await _judge_guest(sites, run, before, said, may_be_cold=may_be_cold)
    if not arrived:
        await _move_undisturbed(sites, run)
    run.resumed = run.outcome not in ARRIVED


def _judge_end(run: Run, attempts: list[Migration]) -> bool:
    """Whether the last attempt went through."""
    first, last = attempts[0], attempts[-1]
    run.outcome, run.attempts = first.outcome, len(attempts)
    run.cause = f"{first.problem.cause} ({first.problem.code})" if first.problem else ""
    run.took_ms = round((last.ended_at - first.started_at) * 1000)
    _must(run.hit or run.outcome == "succeeded", f"nothing was struck, and it failed: {run.cause}")
    for one in attempts:
        _must(one.outcome in ENDS, f"attempt {one.attempt} has ended as {one.outcome!r}")
        told = one.problem is not None and one.problem.cause and one.problem.next_command
        _must(one.outcome != "failed" or bool(told), f"attempt {one.attempt} failed without a cause or a next command")
    return last.outcome in ARRIVED


async def _judge_guest(sites: Sites, run: Run, before: dict[str, Any], said: int, *, may_be_cold: bool) -> None:
    """It works, at one place, with all that it had; only a guest whose own QEMU was killed may have booted again."""
    kept = await sites.bring_up()
    run.cold = kept is not None
    _must(may_be_cold or not run.cold, "the VM was off, and nobody had killed its QEMU")
    _must(kept is None or kept >= said, f"records were lost: the guest had synced {said}, and finds {kept}")
    now = await sites.until_running()
    _must(run.cold or now["kept"] == before["kept"], "the guest has booted again unasked")
    await _verify(sites, run)
    await until(lambda: len(living(sites.home)) == 1 and not living(sites.away), "one QEMU is left, where the VM is")


async def _verify(sites: Sites, run: Run) -> None:
    found = await sites.verdict(run.migration_id)
    run.errors, run.lost, run.doubled = found["errors"], found["lost"], found["doubled"]
    _must(not any(found.values()), f"the guest finds {found}")


async def _move_undisturbed(sites: Sites, run: Run) -> None:
    """The clusters have given up, and said how to go on: it goes through now."""
    last = (await sites.ended(await sites.migrate()))[-1]
    _must(last.outcome == "succeeded", f"undisturbed, the next attempt was {last.outcome}: {last.problem}")
    await _verify(sites, run)


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like a sentence where it is used
    if not holds:
        raise BrokenError(otherwise)


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

"""Something is destroyed at every point of the hand-over: one copy runs in the end, with everything that it had."""

import tempfile
from pathlib import Path

import pytest
import pytest_asyncio

from novacron.launch.chaos.cpu_watch import never_two
from novacron.launch.chaos.draw import draw
from novacron.launch.chaos.trial import try_once
from support.wreck import halting_sites, wreck

POINTS = (
    "source-open",
    "destination-prepared",
    "copy",
    "switchover",
    "destination-ready",
    "ready",
    "source-committed",
    "destination-running",
    "verify",
    "source-settled",
    "source-released",
)
VICTIMS = ("source-node", "target-node", "source-controller", "target-controller", "link")
WHOLE = {"errors": 0, "lost": 0, "doubled": 0}
FAILED = {  # what goes before the point of no return ends the attempt; a controller may go and come back
    *(("source-node", point) for point in POINTS[: POINTS.index("source-committed")]),
    *(("target-node", point) for point in POINTS[1 : POINTS.index("ready")]),  # before, it is waited for
    *(("link", point) for point in ("copy", "switchover", "destination-ready")),
}
EITHER = {
    ("target-node", "ready"),
    ("link", "ready"),
    ("source-qemu", "ready"),
}  # did QEMU's own last word get through?
COLD = {  # where the only QEMU with the newest memory is killed
    *(("source-qemu", point) for point in POINTS[: POINTS.index("source-committed")]),
    *(("target-qemu", point) for point in POINTS[POINTS.index("destination-running") :]),
}
FEW = {
    ("source-qemu", "switchover"),
    ("target-qemu", "source-committed"),
    ("target-qemu", "verify"),
    ("source-node", "switchover"),
    ("source-node", "source-committed"),
    ("target-node", "destination-ready"),
    ("target-node", "destination-running"),
    ("source-controller", "copy"),
    ("link", "ready"),
}
NATIVE = {("link", "switchover"), ("target-node", "destination-ready"), ("source-node", "source-committed")}
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("qemu-1")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sites(guest_files, accelerator_file):
    with tempfile.TemporaryDirectory(prefix="nc-") as directory:
        async with halting_sites(Path(directory), guest_files, accelerator_file) as sites:
            yield sites


def cases(victims, few=FEW):
    """Every point and victim; a few of them in every run, all of them in ``./test soak``."""
    for victim in victims:
        for point in POINTS:
            marks = () if (victim, point) in few else (pytest.mark.soak,)
            yield pytest.param(victim, point, id=f"{victim}-at-{point}", marks=marks)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("victim", "point"), list(cases(VICTIMS)))
async def test_a_process_or_the_link_goes_and_the_vm_does_not(sites, victim, point):
    async with never_two(sites.home, sites.away):
        outcome = await wreck(sites, point, victim)
        assert await sites.verdict(f"{victim}-{point}") == WHOLE
    assert outcome == ("failed" if (victim, point) in FAILED else "succeeded") or (victim, point) in EITHER


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("victim", "point"), list(cases(VICTIMS, NATIVE)))
async def test_it_does_not_either_when_the_qemus_speak_with_each_other(sites, victim, point):
    async with never_two(sites.home, sites.away):
        outcome = await wreck(sites, point, victim, "native")
        assert await sites.verdict(f"native-{victim}-{point}") == WHOLE
    assert outcome == ("failed" if (victim, point) in FAILED else "succeeded") or (victim, point) in EITHER


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("victim", "point"), list(cases(("source-qemu", "target-qemu"))))
async def test_a_qemu_is_killed_and_no_record_is_lost(sites, victim, point):
    before = (await sites.until_running())["records"]
    async with never_two(sites.home, sites.away):
        await wreck(sites, point, victim)
        kept = await sites.bring_up()
        assert await sites.verdict(f"{victim}-{point}") == WHOLE
    assert (kept is not None) == ((victim, point) in COLD) or (victim, point) in EITHER
    assert kept is None or kept >= before


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", [806, 807])
async def test_a_strike_at_a_moment_that_is_drawn_costs_nothing(sites, number):
    """A node and a QEMU of the target are killed; many more such strikes are in ``test_chaos``, for the soak."""
    run = await try_once(sites, draw(3, number), usual_s=2.0)
    assert (run.violation, run.hit) == ("", True)

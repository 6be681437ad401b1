"""Medians and ratios of the benchmark."""

import pytest

from novacron.launch.bench.attempt import attempt
from novacron.launch.bench.errors import GaveUpError
from novacron.launch.bench.report import show
from novacron.launch.bench.run import Against, Run, compare
from novacron.launch.demo.errors import MoveFailedError, UnverifiedError


def run(contender, total_ms, link_bytes, outcome="moved", workload="idle", **more):
    return Run(workload, contender, outcome, total_ms, link_bytes=link_bytes, **more)


OURS = [run("novacron", ms, size) for ms, size in ((900, 50), (1000, 40), (5000, 30))]
PEERS = [
    run("stock fast", 500, 400),
    run("stock lean", 2000, 80),
    run("stock never", 100, 10, "gave up"),
    run("stock wrong", 100, 10, errors=1),
]


def test_ratios_are_to_the_best_stock_mode_that_moved_the_guest_whole():
    (found,) = compare([*OURS, *PEERS])
    assert (found.fastest_peer, found.leanest_peer) == ("stock fast", "stock lean")
    ours, fast, _, never, _ = found.standings
    assert (ours.runs, ours.total_ms, ours.time_ratio, ours.bytes_ratio) == (3, 1000, 2.0, 0.5)
    assert (fast.time_ratio, fast.bytes_ratio) == (1.0, 5.0)
    assert (never.outcome, never.time_ratio) == ("gave up", None)


def test_without_a_stock_mode_that_moved_the_guest_there_are_no_ratios(capsys):
    found, other = compare([OURS[0], PEERS[2], run("novacron", 1, 1, workload="random")])
    assert (found.fastest_peer, found.standings[0].time_ratio, other.workload) == ("", None, "random")
    show(found)
    out = capsys.readouterr().out
    assert "idle: no stock mode has moved the guest" in out
    assert "gave up after 100 ms" in out


def test_one_run_that_came_to_nothing_is_the_outcome_and_its_cause_is_told(capsys):
    (found,) = compare([OURS[0], run("novacron", 9, 0, "failed", note="the link was cut"), PEERS[0]])
    assert (found.standings[0].outcome, found.standings[0].bytes_ratio) == ("failed", None)
    show(found)
    assert "novacron: the link was cut" in capsys.readouterr().out


def test_bytes_are_a_share_of_what_they_are_held_against(capsys):
    back = run("novacron, the way back", 100, 3, against=Against("the way there", 60))
    (found,) = compare([back])
    assert (found.standings[0].share, found.standings[0].share_of) == (0.05, "the way there")
    show(found)
    assert "5.0% of the way there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "outcome"), [(GaveUpError("too long"), "gave up"), (MoveFailedError("broken"), "failed")]
)
async def test_what_came_to_nothing_is_a_run_too(error, outcome):
    async def move():
        raise error

    found = await attempt("idle", "novacron", move())
    assert (found.outcome, found.note) == (outcome, error.cause)


async def test_a_guest_that_is_not_whole_ends_the_benchmark():
    async def move():
        raise UnverifiedError("one page is wrong")

    with pytest.raises(UnverifiedError):
        await attempt("idle", "novacron", move())

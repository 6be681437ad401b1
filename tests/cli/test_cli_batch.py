"""A batch as people and programs see it, and how a command that followed one ends."""

import json

import msgspec
import pytest

from novacron.cli.batch_view import BATCH, describe, move_lines, route
from novacron.control.kinds import BATCHES, NODES
from novacron.core.ids import BatchId, NodeId, new_id
from novacron.protocol.resources import Batch, BatchMove, Node, Problem

NO_ROOM = Problem("no_room", "no node can take VM db", "novacron node list")
MOVES = (
    BatchMove("vm-1", "web", "node-1", 100, migration_id="migration-1", phase="done", outcome="succeeded"),
    BatchMove("vm-2", "db", "node-1", 100, phase="waiting", outcome="failed", problem=NO_ROOM),
    BatchMove("vm-3", "mail", "node-1", 200, migration_id="migration-3", phase="copy", done_bytes=1, total_bytes=2),
    BatchMove("vm-4", "cache", "node-1", 400),
    BatchMove("vm-5", "off", "node-1", 800, outcome="stays", problem=Problem("vm_stays", "VM off is stopped")),
)
UNDER_WAY = Batch(BatchId("batch-1"), "site-b", drains="node-1", moves=MOVES)


def batch(*outcomes: str, outcome: str) -> Batch:
    moves = tuple(
        BatchMove(
            f"vm-{number}", f"vm-{number}", "node-1", 1, outcome=given, problem=NO_ROOM if given == "failed" else None
        )
        for number, given in enumerate(outcomes)
    )
    return Batch(BatchId(new_id("batch")), "site-b", moves=moves, outcome=outcome)


def test_a_batch_in_words():
    assert route(UNDER_WAY) == "node-1 → site-b"
    assert describe(UNDER_WAY) == "1 of 4 moved · 1 failed · mail copying · 1 waiting"
    assert move_lines(UNDER_WAY).splitlines() == [
        "web    succeeded",
        "db     failed: no node can take VM db",
        "       next: novacron node list",
        "mail   copying",
        "cache  waiting",
        "off    stays: VM off is stopped",
    ]


def test_the_bar_of_a_batch_goes_by_what_was_expected_and_never_falls():
    picture = BATCH.pictures("")
    assert picture(UNDER_WAY).fraction == pytest.approx((100 + 200 * 0.48) / 800)
    grown = msgspec.structs.replace(UNDER_WAY, moves=(*MOVES, BatchMove("vm-6", "new", "node-1", 5000)))
    assert picture(grown).fraction == picture(UNDER_WAY).fraction
    assert BATCH.pictures("")(batch("succeeded", "stays", outcome="succeeded")).fraction == 1


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (batch("succeeded", "stays", outcome="succeeded"), 0, ""),
        (batch("succeeded", "failed", outcome="partial"), 7, "done_in_part"),
        (batch("failed", outcome="failed"), 1, "batch_failed"),
        (batch("succeeded", "cancelled", outcome="cancelled"), 1, "batch_cancelled"),
    ],
    ids=lambda given: given.outcome if isinstance(given, Batch) else "",
)
def test_a_command_that_followed_a_batch_ends_as_it_did(novacron, served, ended, code, said):
    served.write(lambda tx: BATCHES.put(tx, ended, named=False))
    done = novacron("batch", "watch", ended.id, "--output", "ndjson")
    assert done.code == code, done
    assert [json.loads(line)["outcome"] for line in done.out.splitlines()] == [ended.outcome]
    if said:
        told = json.loads(done.err.splitlines()[-1])
        assert (told["code"], told["next_command"]) == (said, f"novacron batch show {ended.id}")


def test_an_empty_node_is_drained_shown_and_undrained(novacron, served):
    node = Node(NodeId(new_id("node")), "node-1", "127.0.0.1:1", "spiffe://x", state="unreachable")
    served.write(lambda tx: NODES.put(tx, node))
    drained = novacron("node", "drain", "node-1", "--concurrency", "3", "--follow", "--output", "json")
    assert drained.code == 0, drained
    shown = json.loads(drained.out)
    assert (shown["drains"], shown["concurrency"], shown["outcome"]) == ("node-1", 3, "succeeded")
    assert "unreachable, drained" in novacron("node", "list").out
    assert novacron("node", "undrain", "node-1").code == 0
    assert "drained" not in novacron("node", "show", "node-1").out
    assert novacron("node", "remove", "node-1").code == 0
    assert novacron("node", "show", "node-1").code == 3


def test_vms_and_a_node_at_once_or_neither_is_wrong_usage(novacron):
    for given in ((), ("web", "--all-from", "node-1")):
        done = novacron("migrate", *given, "--to", "site-b")
        assert (done.code, done.next) == (2, "novacron migrate --help")

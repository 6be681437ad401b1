"""Time windows as people write them, and how what waits for one is shown."""

import json

import click
import pytest

from novacron.cli.batch_view import describe as describe_batch
from novacron.cli.progress import describe
from novacron.cli.texts import moment
from novacron.cli.time_window import Window
from novacron.control.kinds import BATCHES, NODES
from novacron.core.ids import BatchId, NodeId, new_id
from novacron.protocol.resources import Batch, BatchMove, Migration, Node
from novacron.protocol.time_window import TimeWindow

WORKDAYS = ("mon", "tue", "wed", "thu", "fri")


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("22:00-05:00", TimeWindow("22:00", "05:00")),
        ("22:00-05:00 Europe/Berlin", TimeWindow("22:00", "05:00", "Europe/Berlin")),
        ("mon-fri 22:00-05:00", TimeWindow("22:00", "05:00", days=WORKDAYS)),
        ("sun,fri-sat 00:00-00:00 UTC", TimeWindow("00:00", "00:00", days=("fri", "sat", "sun"))),
        ("sat-mon 09:00-17:00", TimeWindow("09:00", "17:00", days=("mon", "sat", "sun"))),
    ],
)
def test_a_window_is_written_as_days_hours_and_a_zone(text, window):
    assert Window().convert(text, None, None) == window


@pytest.mark.parametrize("text", ["", "22-05", "22:00", "24:00-05:00", "22:60-23:00", "someday 22:00-05:00", "mon-fri"])
def test_what_is_no_window_is_refused_with_an_example(text):
    with pytest.raises(click.BadParameter, match="write it like 22:00-05:00, or mon-fri 22:00-05:00 Europe/Berlin"):
        Window().convert(text, None, None)


def test_a_drain_waits_for_its_window_and_a_wrong_one_is_refused(novacron, served):
    node = Node(NodeId(new_id("node")), "node-1", "127.0.0.1:1", "spiffe://x", state="unreachable")
    served.write(lambda tx: NODES.put(tx, node))
    wrong = novacron("node", "drain", "node-1", "--window", "22:00-05:00 Mars")
    assert (wrong.code, "there is no time zone 'Mars'" in wrong.err) == (2, True)
    alone = novacron("node", "drain", "node-1", "--overrun")
    assert (alone.code, "--overrun is of a --window" in alone.err) == (2, True)
    drained = novacron("node", "drain", "node-1", "--window", "22:00-05:00 Europe/Berlin", "--output", "json")
    assert drained.code == 0, drained
    batch = served.read(lambda tx: BATCHES.get(tx, json.loads(drained.out)["id"])).value
    assert batch.drains == "node-1"


def test_what_waits_for_a_window_says_until_when_and_why():
    waits = Migration(
        "migration-1", "vm-1", "demo", "a", "b", "outgoing", "waiting", begins_at=1e9, waits_for="its window is shut"
    )
    assert describe(waits) == f"waiting begins at {moment(1e9)} (its window is shut)"
    batch = Batch(BatchId("batch-1"), "b", moves=(BatchMove("vm-1", "web", "node-1", 100),), begins_at=1e9)
    assert describe_batch(batch) == f"0 of 1 moved · 1 waiting · the time window opens at {moment(1e9)}"

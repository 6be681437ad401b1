"""A plan, and what it foretold beside what came, as people read them."""

import json

import pytest

from novacron.control.kinds import MIGRATIONS, PLANS
from novacron.core.units import MIB
from novacron.protocol.migration import ByteSplit, MigrationPolicy, MigrationSummary
from novacron.protocol.plan import Interval, LinkSample, Prediction, Survey
from novacron.protocol.resources import Migration, Plan
from novacron.protocol.vm import VmSpec

PREDICTED = Prediction(Interval(4000, 2000, 8000), Interval(100, 50, 200), Interval(8 * MIB, 4 * MIB, 16 * MIB))
SUMMARY = MigrationSummary(5000, 120, 3, 1, 9 * MIB, 1, 1, 1, verified=True, split=ByteSplit())
SURVEY = Survey("spiffe://x/node/n", True, 1, 1, 1, 1, 1.0, 1.0, 1, 1.0, 1, 1)


def a_plan(predicted: Prediction | None) -> Plan:
    return Plan(
        id="plan-1",
        vm_id="vm-1",
        vm_name="demo",
        spec=VmSpec("demo", 1, 128 * MIB),
        owner_epoch=1,
        state="running",
        node_id="node-1",
        target="cluster-b",
        target_cluster="site-b",
        target_node="rack-1",
        policy=MigrationPolicy(),
        strategy="stream",
        survey=SURVEY,
        link=LinkSample(1e6, 20),
        reasons=("The link is slow.", "The guest is calm."),
        predicted=predicted,
        made_at=1.0,
    )


def test_a_plan_says_what_why_how_much_and_how_to_do_it(novacron, served):
    served.write(lambda tx: PLANS.put(tx, a_plan(PREDICTED), named=False))
    shown = novacron("plan", "show", "plan-1").out.splitlines()
    assert [line.split() for line in shown[2:5]] == [
        ["strategy", "stream"],
        ["why", "The", "link", "is", "slow."],
        ["The", "guest", "is", "calm."],
    ]
    assert shown[6].split() == ["total", "time", "4", "s", "2", "s", "8", "s"]
    assert shown[-1] == "do it: novacron migrate demo --to site-b/rack-1 --plan-id plan-1"
    document = json.loads(novacron("plan", "show", "plan-1", "--output", "json").out)
    assert document["predicted"]["downtime_ms"] == {"value": 100, "low": 50, "high": 200}
    assert "site-b/rack-1" in novacron("plan", "list").out


def test_what_would_never_end_is_said_to(novacron, served):
    served.write(lambda tx: PLANS.put(tx, a_plan(None), named=False))
    assert "it would never end" in novacron("plan", "show", "plan-1").out
    assert "no end" in novacron("plan", "list").out


def test_a_migration_shows_what_was_expected_of_it(novacron, served):
    migration = Migration(
        "migration-1", "vm-1", "demo", "a", "b", "outgoing", "done", plan_id="plan-1", predicted=PREDICTED
    )
    ended = Migration("migration-2", "vm-1", "demo", "a", "b", "outgoing", "done", summary=SUMMARY, predicted=PREDICTED)

    def put(tx):
        MIGRATIONS.put(tx, migration, named=False)
        MIGRATIONS.put(tx, ended, named=False)

    served.write(put)
    assert "100 ms (50 ms to 200 ms)" in novacron("migration", "show", "migration-1").out
    assert "8 MiB (4 MiB to 16 MiB); it came to 9 MiB" in novacron("migration", "show", "migration-2").out


@pytest.mark.parametrize("flag", [("--plan",), ("--plan-id", "plan-1")])
def test_a_plan_is_of_one_vm(novacron, served, flag):  # noqa: ARG001 - a context
    done = novacron("migrate", "one", "two", "--to", "site-b", *flag)
    assert (done.code, "a plan is of one VM" in done.err) == (2, True)


def test_a_plan_that_is_not_there_is_not_found(novacron, served):  # noqa: ARG001 - a context
    done = novacron("migrate", "demo", "--to", "site-a/node-1", "--plan-id", "plan-9")
    assert (done.code, done.next) == (3, "novacron plan list")

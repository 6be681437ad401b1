"""Metrics say what the records say; every name is documented."""

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from novacron.control.kinds import MIGRATIONS, NODES, SCHEMA, VMS
from novacron.control.metrics import exposition
from novacron.core.ids import ClusterId, MigrationId, NodeId, VmId
from novacron.database.database import Database
from novacron.protocol.migration import ByteSplit, MigrationProgress, MigrationSummary
from novacron.protocol.resources import Cluster, Migration, Node, Vm
from novacron.protocol.vm import VmSpec

DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"
CLUSTER = Cluster(ClusterId("cluster-1"), "site-a", "0.1.0", "127.0.0.1:1")
SPLIT = ByteSplit(zero_bytes=700, literal_bytes=300)
SUMMARY = MigrationSummary(
    total_ms=7600,
    downtime_ms=240,
    rounds=3,
    guest_bytes=1000,
    wire_bytes=400,
    ram_wire_bytes=300,
    disk_wire_bytes=100,
    bandwidth_bytes_s=50,
    verified=True,
    split=SPLIT,
)
NOW = MigrationProgress(
    phase="copy", round=2, done_bytes=500, total_bytes=900, wire_bytes=80, rtt_ms=40.0, streams=2, split=SPLIT
)


def move(number: int, outcome: str, **more) -> Migration:
    progress = MigrationProgress(wire_bytes=50)
    migration_id = MigrationId(f"migration-{number}")
    plain = Migration(migration_id, VmId("vm-1"), "demo", "site-a", "site-b", "outgoing", "done", outcome=outcome)
    return msgspec.structs.replace(plain, progress=progress, **more)


def values(text: str) -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


@pytest.fixture
async def scrape(tmp_path):
    """Put records, and read what Prometheus is told of them."""
    database = await Database.open(str(tmp_path / "test.db"), SCHEMA)

    async def look(*moves: Migration) -> str:
        def put(tx) -> None:
            NODES.put(tx, Node(NodeId("node-1"), "node-1", "h:1", "spiffe://x", state="ready"))
            VMS.put(tx, Vm(VmId("vm-1"), "demo", VmSpec("demo", 1, 1 << 27), "running", 1))
            for one in moves:
                MIGRATIONS.put(tx, one, named=False)

        await database.write(put)
        return (await database.read(lambda tx: exposition(tx, CLUSTER))).decode()

    yield look
    await database.close()


async def test_what_is_told_is_what_the_records_say(scrape):
    told = values(
        await scrape(
            move(1, "succeeded", summary=SUMMARY),
            move(2, "failed"),
            move(3, "succeeded", summary=SUMMARY, direction="incoming"),
            move(4, "", phase="copy", vm_name="web"),
        )
    )
    assert told["novacron_build_info", "0.1.0", "site-a"] == 1
    assert (told["novacron_nodes", "ready"], told["novacron_nodes", "unreachable"]) == (1, 0)
    assert told["novacron_vms", "running"] == 1
    assert told["novacron_migrations_total", "outgoing", "succeeded"] == 1
    assert told["novacron_migrations_total", "failed", "outgoing"] == 1
    assert told["novacron_migration_wire_bytes_total", "outgoing"] == 400 + 50
    assert told["novacron_migration_guest_bytes_total", "outgoing", "zero"] == 700
    assert told["novacron_migration_duration_seconds_sum", "outgoing"] == pytest.approx(7.6)
    assert told["novacron_migration_duration_seconds_bucket", "5.0", "outgoing"] == 0
    assert told["novacron_migration_duration_seconds_bucket", "10.0", "outgoing"] == 1
    assert told["novacron_migration_downtime_seconds_bucket", "+Inf", "incoming"] == 1
    assert told["novacron_migration_running_phase", "copy", "migration-4", "outgoing", "web"] == 1
    assert told["process_cpu_seconds_total",] > 0


async def test_one_that_is_under_way_shows_its_figures_until_it_ends(scrape):
    going = move(1, "", phase="copy")
    going = msgspec.structs.replace(going, progress=NOW)
    told = values(await scrape(going))
    one = ("demo", "migration-1", "outgoing")
    assert told["novacron_migration_running_rtt_seconds", *one] == pytest.approx(0.04)
    assert told["novacron_migration_running_planned_bytes", *one] == 900
    assert told["novacron_migration_running_guest_bytes", *sorted((*one, "zero"))] == 700
    assert told["novacron_migration_wire_bytes_total", "outgoing"] == 0
    told = values(await scrape(msgspec.structs.replace(going, outcome="cancelled")))
    assert not [key for key in told if key[0].startswith("novacron_migration_running")]
    assert told["novacron_migration_wire_bytes_total", "outgoing"] == 80


async def test_a_counter_does_not_fall_when_a_vm_comes_back(scrape):
    before = values(await scrape(move(1, "succeeded", summary=SUMMARY), move(2, "succeeded", summary=SUMMARY)))
    after = values(await scrape(move(1, "rolled_back", summary=SUMMARY), move(2, "taken_over", summary=SUMMARY)))
    for key, value in before.items():
        if "total" in key[0] or "_seconds_" in key[0]:
            assert after[key] >= value, key
    assert after["novacron_migrations_total", "outgoing", "rolled_back"] == 1
    assert after["novacron_migrations_total", "outgoing", "taken_over"] == 1


async def test_every_name_is_documented_and_nothing_else_is(scrape):
    names = set(re.findall(r"^# TYPE (\S+)", await scrape(), re.MULTILINE))
    documented = set(re.findall(r"`((?:novacron|process)_\w+)`", DOCUMENT.read_text()))
    assert documented == names

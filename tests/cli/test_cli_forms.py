"""What people write becomes what the API takes, and figures become what people read."""

import time

import click
import pytest

from novacron.cli.live import live_line
from novacron.cli.measures import BANDWIDTH
from novacron.cli.migration_view import pictures
from novacron.cli.policy import policy_of
from novacron.cli.progress import Bar, describe, options, summary_facts
from novacron.cli.texts import ago, moment, sizes, span
from novacron.cli.vm_requests import parse_disk, parse_disk_size, parse_nic, read_seed
from novacron.control.kinds import NODES
from novacron.core.errors import InvalidInputError
from novacron.core.settings import MigrateSettings
from novacron.core.units import GIB, MIB
from novacron.protocol.migration import ByteSplit, MigrationProgress, MigrationSummary
from novacron.protocol.node import Orphan
from novacron.protocol.resources import Migration, Node
from novacron.protocol.rest import DiskRequest, NicRequest


def test_disks_cards_and_seeds(tmp_path):
    assert parse_disk("10GiB") == DiskRequest(10 * GIB)
    assert parse_disk("debian") == DiskRequest(image="debian")
    assert parse_disk("debian:20GiB") == DiskRequest(20 * GIB, "debian")
    assert parse_disk_size("disk0=1GiB") == ("disk0", GIB)
    assert parse_nic("user") == NicRequest("user")
    assert parse_nic("tap:br0,mac=52:54:00:AA:00:01") == NicRequest("tap", "br0", "52:54:00:aa:00:01")
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "network-config").write_text("version: 2\n")
    seed = read_seed(tmp_path)
    assert (seed.user_data, seed.meta_data, seed.network_config) == ("#cloud-config\n", "", "version: 2\n")
    assert read_seed(tmp_path / "user-data").user_data == "#cloud-config\n"


def test_bandwidth_is_a_rate_or_a_share_of_the_link():
    wanted = MigrateSettings()
    rate = policy_of(wanted, bandwidth=BANDWIDTH.convert("200Mbit/s", None, None))
    assert (rate.bandwidth_bytes_s, rate.bandwidth_share) == (25_000_000, None)
    share = policy_of(wanted, bandwidth=BANDWIDTH.convert("60%", None, None), priority=3)
    assert (share.bandwidth_bytes_s, share.bandwidth_share, share.priority) == (None, 0.6, 3)
    assert BANDWIDTH.convert(0.5, None, None) == 0.5
    for wrong in ("0%", "101%", "many%"):
        with pytest.raises(click.BadParameter, match="write it like 60%"):
            BANDWIDTH.convert(wrong, None, None)


@pytest.mark.parametrize("text", ["tap", "user:br0", "wifi", "user,colour=red"])
def test_a_card_that_is_none_is_refused_with_its_form(text):
    with pytest.raises(InvalidInputError, match=r"write (user|mac=)"):
        parse_nic(text)


def test_a_disk_without_a_size_is_refused():
    with pytest.raises(click.UsageError, match="write disk0=20GiB"):
        parse_disk_size("disk0")


def test_times_and_sizes_as_people_read_them():
    now = time.time()
    assert [ago(now - passed, now) for passed in (5, 120, 7200, 200_000)] == [
        "5 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert ago(0) == moment(0) == ""
    assert moment(now).count(":") == 2
    assert [span(ms) for ms in (85, 4200, 187_000)] == ["85 ms", "4.2 s", "3:07 min"]
    assert sizes(("zero", MIB), ("delta", 0)) == "zero 1 MiB"


def migration(phase: str = "copy", *, done: int = 0, total: int = 100, outcome: str = "", **more) -> Migration:
    progress = MigrationProgress(phase=phase, done_bytes=done, total_bytes=total, **more)
    return Migration("m-1", "vm-1", "web", "a", "b", "outgoing", phase, outcome=outcome, progress=progress)


def test_the_bar_never_falls_and_is_full_only_at_success():
    bar = Bar()
    seen = [bar.advance(migration(done=done, total=total)) for done, total in ((50, 100), (60, 200), (200, 200))]
    assert seen == sorted(seen)
    assert bar.advance(migration("window", done=200, total=200)) < 1
    assert bar.advance(migration("window", outcome="succeeded")) == 1


def test_what_goes_on_in_words():
    text = describe(
        migration(done=MIB, total=2 * MIB, round=2, wire_rate_bytes_s=1e6, dirty_rate_bytes_s=2e6, eta_ms=3000)
    )
    assert text == "copying, round 2 · 1 MiB of 2 MiB · 8 Mbit/s on the link · guest dirties 16 Mbit/s · 3 s left"
    assert describe(migration("done", outcome="rolled_back", total=0)) == "rolled back"
    stuck = migration(converging=False, note="will not converge at this rate")
    assert "novacron migration cancel m-1 --context a" in options(stuck, " --context a")
    assert options(migration(), "") == ""


def test_a_summary_in_facts():
    summary = MigrationSummary(
        4200, 85, 3, 100 * MIB, 10 * MIB, 8 * MIB, 2 * MIB, 1_000_000, True, ByteSplit(zero_bytes=MIB)
    )
    facts = dict(summary_facts(summary))
    assert facts["total"] == "4.2 s"
    assert facts["on the wire"] == "10 MiB (RAM 8 MiB, disks 2 MiB)"
    assert facts["sent as"] == "zero 1 MiB"
    assert facts["verified"] == "yes"


def test_a_node_shows_what_it_found_at_its_start(novacron, served):
    found = (Orphan("vm-1", "half made", removed=True), Orphan("vm-2", "the only copy", removed=False))
    served.write(lambda tx: NODES.put(tx, Node("node-1", "rack-1", "h:1", "spiffe://x", orphans=found)))
    shown = novacron("node", "show", "rack-1").out.splitlines()
    assert [line.split(maxsplit=1) for line in shown[-2:]] == [
        ["orphans", "removed: vm-1 (half made)"],
        ["kept:", "vm-2 (the only copy)"],
    ]


def test_a_live_line_is_drawn_and_wiped(capsys):
    with live_line(pictures(" --context a")) as show:
        show(migration(done=50, converging=False, note="will not converge"), "")
        show(migration(done=60), "the controller is away")
    assert "\x1b" not in capsys.readouterr().err

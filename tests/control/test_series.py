"""A migration's progress is kept by time, at both sides, in a bounded number of points."""

import itertools

import msgspec
import pytest

from novacron.control import series
from novacron.control.kinds import MIGRATIONS, SCHEMA
from novacron.core.ids import MigrationId, VmId
from novacron.database.database import Database
from novacron.protocol.migration import MigrationPolicy, MigrationProgress
from novacron.protocol.resources import Migration
from support.clusters import in_memory, two_clusters

HOUR_S = 3600
REPORTS_S = 5
BEGUN = 1_700_000_000.0


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(str(tmp_path / "test.db"), SCHEMA)
    yield database
    await database.close()


async def test_both_sides_keep_how_a_migration_went(short_dir):
    async with two_clusters(short_dir, in_memory()) as (a, b):
        await a.boot_small()
        policy = MigrationPolicy(verify_window_ms=0, bandwidth_bytes_s=600, streams=3)
        move = await a.migrate("demo", "site-b", policy)
        ended = await a.ended(move.id)
        for site in (a, b):
            record = await site.ended(move.id)
            points = (await site.database.read(lambda tx: series.series(tx, move.id))).items
            assert points[-1].progress == record.progress
            times = [point.at - record.started_at for point in points]
            assert times == sorted(times)
            done = [point.progress.done_bytes for point in points]
            assert done == sorted(done)
            under_way = [point.progress for point in points if point.progress.phase in {"copy", "switchover"}]
            assert len(under_way) > 2
            assert under_way[-1].streams == policy.streams
            assert under_way[0].wire_bytes < under_way[-1].wire_bytes < ended.summary.wire_bytes


async def test_the_points_of_a_long_migration_are_few_and_evenly_spread(database):
    known = Migration(
        MigrationId("migration-1"), VmId("vm-1"), "demo", "site-a", "site-b", "outgoing", "copy", started_at=BEGUN
    )

    def tell(tx) -> None:
        before = known
        for report in range(HOUR_S * REPORTS_S):
            progress = MigrationProgress(phase="copy", done_bytes=report)
            now = msgspec.structs.replace(before, progress=progress)
            series.follow(tx, before, now, BEGUN + report / REPORTS_S)
            before = now

    await database.write(tell)
    points = (await database.read(lambda tx: series.series(tx, known.id))).items
    assert series.MOST_POINTS / 2 <= len(points) <= series.MOST_POINTS
    assert points[0].at < BEGUN + HOUR_S / len(points)
    assert points[-1].progress.done_bytes == HOUR_S * REPORTS_S - 1
    gaps = [after.at - before.at for before, after in itertools.pairwise(points)]
    assert max(gaps) < 2 * HOUR_S / len(points)
    assert (await database.read(lambda tx: MIGRATIONS.get(tx, known.id))).value.progress == points[-1].progress

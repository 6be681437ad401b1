"""The database on real SQLite files."""

import asyncio
import sqlite3
import threading

import pytest
from msgspec import Struct

from novacron.database import resources
from novacron.database.database import Database
from novacron.database.errors import (
    DatabaseUrlError,
    NameTakenError,
    ResourceUnknownError,
    VersionConflictError,
    VersionGoneError,
)


class Thing(Struct, frozen=True):
    id: str
    name: str
    size: int = 0


THINGS = resources.Collection("thing", Thing, what="thing", list_command="novacron thing list")


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(str(tmp_path / "db"), [resources.SCHEMA])
    yield database
    await database.close()


async def test_many_writes_share_commits_and_none_is_lost(database):
    await asyncio.gather(
        *(database.write(lambda tx, n=n: THINGS.put(tx, Thing(f"t{n:03}", f"n{n}"))) for n in range(200))
    )
    found = await database.read(THINGS.list)
    assert [thing.value.name for thing in found] == [f"n{n}" for n in range(200)]
    assert sorted(thing.version for thing in found) == list(range(1, 201))


async def test_a_failing_write_undoes_itself_alone(database):
    def bad(tx):
        THINGS.put(tx, Thing("bad", "bad"))
        raise ZeroDivisionError

    results = await asyncio.gather(
        database.write(lambda tx: THINGS.put(tx, Thing("a", "a"))),
        database.write(bad),
        database.write(lambda tx: THINGS.put(tx, Thing("b", "b"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], ZeroDivisionError)
    assert [t.value.id for t in await database.read(THINGS.list)] == ["a", "b"]


async def test_names_are_unique_and_versions_guard(database):
    version = await database.write(lambda tx: THINGS.put(tx, Thing("a", "x")))
    with pytest.raises(NameTakenError, match="there is a thing called x"):
        await database.write(lambda tx: THINGS.put(tx, Thing("b", "x")))
    await database.write(lambda tx: THINGS.put(tx, Thing("a", "x", 1), expected_version=version))
    with pytest.raises(VersionConflictError):
        await database.write(lambda tx: THINGS.put(tx, Thing("a", "x", 2), expected_version=version))
    assert (await database.read(lambda tx: THINGS.get(tx, "x"))).value.size == 1
    with pytest.raises(ResourceUnknownError) as caught:
        await database.read(lambda tx: THINGS.get(tx, "nothing"))
    assert caught.value.next_command == "novacron thing list"


async def test_a_watcher_misses_nothing_and_sees_nothing_twice(database):
    seen = []

    async def watch():
        async for change in resources.watch(database, 0):
            seen.append((change.version, change.id, change.body is None))
            if change.body is None:
                return

    await database.write(lambda tx: THINGS.put(tx, Thing("t0", "n0")))
    watching = asyncio.create_task(watch())
    for n in range(1, 50):
        await database.write(lambda tx, n=n: THINGS.put(tx, Thing(f"t{n}", f"n{n}")))
    await database.write(lambda tx: THINGS.delete(tx, "t7"))
    await asyncio.wait_for(watching, 10)
    assert seen == [(n + 1, f"t{n}", False) for n in range(50)] + [(51, "t7", True)]


async def test_a_trimmed_log_says_so(database, monkeypatch):
    monkeypatch.setattr(resources, "KEPT_CHANGES", 5)
    monkeypatch.setattr(resources, "TRIM_EVERY", 10)
    for n in range(10):
        await database.write(lambda tx, n=n: THINGS.put(tx, Thing("a", "a", n)))
    with pytest.raises(VersionGoneError):
        await database.read(lambda tx: resources.changes(tx, 2))
    assert len(await database.read(lambda tx: resources.changes(tx, 6))) == 4


async def test_a_saved_copy_is_whole_and_another_incarnation_after_renewal(database, tmp_path):
    await database.write(lambda tx: THINGS.put(tx, Thing("a", "a")))
    name = await database.write(resources.incarnation)
    assert await database.write(resources.incarnation) == name
    await database.save(tmp_path / "copy")
    copy = await Database.open(str(tmp_path / "copy"), [resources.SCHEMA])
    try:
        assert (await copy.read(lambda tx: THINGS.get(tx, "a"))).value.id == "a"
        assert await copy.write(resources.renew_incarnation) != name
    finally:
        await copy.close()


async def test_what_was_written_survives_the_process(tmp_path):
    first = await Database.open(str(tmp_path / "db"), [resources.SCHEMA])
    await first.write(lambda tx: THINGS.put(tx, Thing("a", "a")))
    with sqlite3.connect(tmp_path / "db") as beside:  # another process would see it before any close
        assert beside.execute("SELECT id FROM resources").fetchall() == [("a",)]
    beside.close()
    await first.close()
    again = await Database.open(str(tmp_path / "db"), [resources.SCHEMA])
    assert await again.read(resources.current_version) == 1
    await again.close()


async def test_another_kind_of_database_is_refused_clearly():
    with pytest.raises(DatabaseUrlError, match="postgresql databases are not served"):
        await Database.open("postgresql://host/db", [])


async def test_a_caller_that_goes_away_takes_nothing_with_it(database):
    """The write may be done or not; the writer goes on, whatever became of who asked."""
    entered, leave = threading.Event(), threading.Event()

    def slow(tx):
        entered.set()
        assert leave.wait(10)
        THINGS.put(tx, Thing("slow", "slow"))

    first = asyncio.create_task(database.write(slow))
    queued = asyncio.create_task(database.write(lambda tx: THINGS.put(tx, Thing("queued", "queued"))))
    await asyncio.to_thread(entered.wait, 10)
    first.cancel()
    queued.cancel()
    leave.set()
    assert await asyncio.gather(first, queued, return_exceptions=True)
    async with asyncio.timeout(10):
        await database.write(lambda tx: THINGS.put(tx, Thing("after", "after")))
    found = {thing.value.id for thing in await database.read(THINGS.list)}
    assert {"slow", "after"} <= found

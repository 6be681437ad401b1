"""Resources: things with an id, a name, a version, and a log of their changes that others watch.

Versions come from one counter that is part of every write, so the order of versions is the order of commits, and a
watcher misses no change. ``incarnation`` names this database: one restored from an old copy is another.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from novacron.database.database import Database, Transaction
from novacron.database.errors import (
    NameTakenError,
    ResourceUnknownError,
    VersionConflictError,
    VersionGoneError,
)

SCHEMA: Final = """
CREATE TABLE resources (
    kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT, version INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX resources_by_name ON resources (kind, name);
CREATE TABLE changes (
    version INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB
);
CREATE TABLE counter (version INTEGER NOT NULL, trimmed INTEGER NOT NULL, incarnation TEXT NOT NULL);
INSERT INTO counter VALUES (0, 0, '')
"""
KEPT_CHANGES: Final = 100_000
TRIM_EVERY: Final = 1_000
BATCH: Final = 500

T = TypeVar("T", bound=Struct)


class Versioned(Struct, Generic[T], frozen=True):
    """A resource with the version of its last change."""

    version: int
    value: T


class Change(Struct, frozen=True):
    """One change; without a body the resource is gone."""

    version: int
    kind: str
    id: str
    body: msgspec.Raw | None


class Collection(Generic[T]):
    """All resources of one kind, as values of ``struct`` (with an ``id``, and a ``name`` when names are unique)."""

    def __init__(self, kind: str, struct: type[T], *, what: str, list_command: str = "") -> None:
        self.kind = kind
        self._struct = struct
        self._what = what
        self._list_command = list_command

    def put(self, tx: Transaction, value: T, *, expected_version: int | None = None, named: bool = True) -> int:
        """Create or replace; the new version. Raises NameTakenError, VersionConflictError."""
        key: str = value.id  # type: ignore[attr-defined]  # every resource has one
        name: str | None = value.name if named else None  # type: ignore[attr-defined]
        if expected_version is not None:
            found = tx.execute("SELECT version FROM resources WHERE kind = ? AND id = ?", (self.kind, key))
            if found != [(expected_version,)]:
                raise VersionConflictError(f"{self._what} {key} has changed since version {expected_version}")
        if name is not None:
            other = tx.execute("SELECT id FROM resources WHERE kind = ? AND name = ?", (self.kind, name))
            if other and other != [(key,)]:
                raise NameTakenError(f"there is a {self._what} called {name}", next_command=self._list_command)
        body = msgspec.json.encode(value)
        version = _next(tx)
        tx.execute("INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?, ?)", (self.kind, key, name, version, body))
        _log(tx, version, self.kind, key, body)
        return version

    def get(self, tx: Transaction, reference: str) -> Versioned[T]:
        """By id or by name; raises ResourceUnknownError."""
        found = self.find(tx, reference)
        if found is None:
            raise ResourceUnknownError(f"there is no {self._what} {reference!r}", next_command=self._list_command)
        return found

    def find(self, tx: Transaction, reference: str) -> Versioned[T] | None:
        """By id or by name, if there is one."""
        statement = "SELECT version, body FROM resources WHERE kind = ? AND (id = ? OR name = ?) ORDER BY id = ? DESC"
        rows = tx.execute(statement, (self.kind, reference, reference, reference))
        return Versioned(rows[0][0], self._decode(rows[0][1])) if rows else None

    def list(self, tx: Transaction, *, after: str = "", limit: int = BATCH) -> list[Versioned[T]]:
        """In the order of ids, those after ``after``."""
        statement = "SELECT version, body FROM resources WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
        return [Versioned(v, self._decode(body)) for v, body in tx.execute(statement, (self.kind, after, limit))]

    def every(self, tx: Transaction) -> Iterator[T]:
        """All of them, in the order of ids."""
        after = ""
        while page := self.list(tx, after=after):
            for found in page:
                after = found.value.id  # type: ignore[attr-defined]  # every resource has one
                yield found.value

    def delete(self, tx: Transaction, key: str) -> None:
        """Remove; harmless when there is none."""
        if tx.execute("DELETE FROM resources WHERE kind = ? AND id = ? RETURNING id", (self.kind, key)):
            _log(tx, _next(tx), self.kind, key, None)

    def _decode(self, body: bytes) -> T:
        return msgspec.json.decode(body, type=self._struct)


def current_version(tx: Transaction) -> int:
    """Of the last change."""
    ((version,),) = tx.execute("SELECT version FROM counter")
    return int(version)


def incarnation(tx: Transaction) -> str:
    """This database's name, given at the first call (a write)."""
    ((name,),) = tx.execute("SELECT incarnation FROM counter")
    if not name:
        return renew_incarnation(tx)
    return str(name)


def renew_incarnation(tx: Transaction) -> str:
    """Another name: what was seen of the database before counts no more."""
    name = secrets.token_hex(8)
    tx.execute("UPDATE counter SET incarnation = ?", (name,))
    return name


def changes(tx: Transaction, after: int, limit: int = BATCH) -> list[Change]:
    """Changes after a version, in order; raises VersionGoneError when some of them were trimmed."""
    ((newest, trimmed),) = tx.execute("SELECT version, trimmed FROM counter")
    if after < trimmed or after > newest:
        raise VersionGoneError(f"changes since version {after} are not known any more", next_command="list again")
    rows = tx.execute(
        "SELECT version, kind, id, body FROM changes WHERE version > ? ORDER BY version LIMIT ?", (after, limit)
    )
    return [
        Change(version, kind, key, None if body is None else msgspec.Raw(body)) for version, kind, key, body in rows
    ]


async def watch(database: Database, after: int) -> AsyncIterator[Change]:
    """Every change after ``after``, once, in order, for ever; raises VersionGoneError."""
    while True:
        waiting = asyncio.ensure_future(database.changed())
        await asyncio.sleep(0)  # the wait stands before the look: no commit falls between
        try:
            found = await database.read(lambda tx: changes(tx, after))  # noqa: B023 - read before it changes
            if not found:
                await waiting
        finally:
            waiting.cancel()
        for change in found:
            yield change
            after = change.version


def _next(tx: Transaction) -> int:
    tx.changed = True
    ((version,),) = tx.execute("UPDATE counter SET version = version + 1 RETURNING version")
    if version % TRIM_EVERY == 0:
        tx.execute("DELETE FROM changes WHERE version <= ?", (version - KEPT_CHANGES,))
        tx.execute("UPDATE counter SET trimmed = MAX(trimmed, ?)", (version - KEPT_CHANGES,))
    return int(version)


def _log(tx: Transaction, version: int, kind: str, key: str, body: Any) -> None:
    tx.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (version, kind, key, body))

"""One database a cluster: many readers, one writer that commits in groups.

What ``write`` has returned is on the disk. SQLite (WAL, full sync) serves one machine; another database takes its place
behind the same four methods.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from novacron.database.errors import DatabaseError, DatabaseUrlError

T = TypeVar("T")
Row = tuple[Any, ...]
GROUP: Final = 256  # writes that may share one commit
READERS: Final = 2


class Transaction:
    """Statements of one write (or one consistent read)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.changed = False  # whether watchers must look again

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; its rows."""
        return self._connection.execute(statement, parameters).fetchall()


@dataclass(frozen=True, slots=True)
class _Write:
    work: Callable[[Transaction], Any]
    done: "Future[Any]"


class Database:
    """Use ``open``; close it at the end. Methods may be called by many tasks at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, "database-read", initializer=self._open_reader)
        self._local = threading.local()
        self._writer = threading.Thread(target=self._write_all, name="database-write", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    async def open(cls, url: str, schema: Sequence[str]) -> Self:
        """``url`` is a path; ``schema`` is a list of steps, each applied once, in order. Raises DatabaseUrlError."""
        if "://" in url:
            raise DatabaseUrlError(
                f"{url.partition('://')[0]} databases are not served by this version: give the path of a file"
            )
        self = cls(Path(url))
        self._writer.start()
        await self.write(lambda tx: _apply(tx, schema))
        return self

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction of its own; returns after the commit is on the disk.

        An exception of ``work`` undoes it alone. A cancellation of the caller does not stop it: it may still commit.
        """
        done: Future[T] = Future()
        self._writes.put(_Write(work, done))
        return await asyncio.wrap_future(done)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` on a consistent snapshot."""
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def changed(self) -> None:
        """Return after the next commit that changed what is watched."""
        async with self._changed:
            await self._changed.wait()

    async def save(self, path: Path) -> None:
        """A whole, verified copy in one file, taken while work goes on."""

        def copy(_: Transaction) -> None:
            with sqlite3.connect(path) as target:
                self._local.connection.backup(target)
                if target.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise DatabaseError("the copy of the database is damaged")
            target.close()

        await self.read(copy)

    async def close(self) -> None:
        """Finish what is queued, and close."""
        self._writes.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        self._connections.append(connection)
        return connection

    def _open_reader(self) -> None:
        self._local.connection = self._connect()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection: sqlite3.Connection = self._local.connection
        connection.execute("BEGIN")
        try:
            return work(Transaction(connection))
        finally:
            connection.execute("ROLLBACK")

    def _write_all(self) -> None:
        """The writer's thread: whatever is waiting shares one commit."""
        connection = self._connect()
        while (first := self._writes.get()) is not None:
            group, stop = [first], False
            while len(group) < GROUP and not self._writes.empty():
                following = self._writes.get()
                if following is None:
                    stop = True
                    break
                group.append(following)
            self._commit(connection, group)
            if stop:
                return

    def _commit(self, connection: sqlite3.Connection, group: list[_Write]) -> None:
        group = [write for write in group if write.done.set_running_or_notify_cancel()]  # the others have gone
        results: list[tuple[Future[Any], Any, BaseException | None]] = []
        changed = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                transaction = Transaction(connection)
                connection.execute("SAVEPOINT one")
                try:
                    results.append((write.done, write.work(transaction), None))
                    changed |= transaction.changed
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked for this write
                    connection.execute("ROLLBACK TO one")
                    results.append((write.done, None, error))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = DatabaseError(f"the database did not commit: {error}")
            results = [(write.done, None, failure) for write in group]
        for done, value, problem in results:
            if problem is None:
                done.set_result(value)
            else:
                done.set_exception(problem)
        if changed:
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._notify()))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _apply(tx: Transaction, schema: Sequence[str]) -> None:
    """Schema steps that were not applied before."""
    tx.execute("CREATE TABLE IF NOT EXISTS schema_steps (number INTEGER PRIMARY KEY)")
    ((applied,),) = tx.execute("SELECT COUNT(*) FROM schema_steps")
    for number, step in enumerate(schema):
        if number < applied:
            continue
        for statement in step.split(";"):
            if statement.strip():
                tx.execute(statement)
        tx.execute("INSERT INTO schema_steps VALUES (?)", (number,))

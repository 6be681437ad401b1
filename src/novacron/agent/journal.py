"""The node's own journal: which VMs it may run, and what is under way. It is the authority, no database is.

SQLite with a full sync for each transaction: what a method has returned is on the disk.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from novacron.agent.errors import MigrationUnknownError, VmNotHereError
from novacron.core.ids import MigrationId, VmId
from novacron.migration.handover import Attempt, Claim, Ownership

T = TypeVar("T")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (vm_id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (migration_id TEXT PRIMARY KEY, vm_id TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts (vm_id TEXT PRIMARY KEY, body BLOB NOT NULL);
"""


class Facts(Struct, frozen=True):
    """What a node remembers of a VM beside who owns it."""

    instance: str = ""  # the one that is the VM
    power: str = "stopped"  # what was asked for: running, paused, stopped
    arrival_state: str = ""  # name of its content as it came here; what was written since is marked
    arrival_image: str = ""  # its RAM as it came here (the running guest's own file, which its writes do not reach)
    cache_state: str = ""  # name of the content that it left behind when it went away
    cache_image: str = ""  # its RAM as it went away
    attestation: str = ""  # an operator's word, by which it was taken over here


class Journal:
    """Claims, attempts and facts, held in memory and written through; changes are made one at a time."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "journal")
        self._path = path
        self._lock = asyncio.Lock()
        self._claims: dict[VmId, Claim] = {}
        self._attempts: dict[MigrationId, Attempt] = {}
        self._facts: dict[VmId, Facts] = {}
        self._database: sqlite3.Connection

    @property
    def written(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    async def open(self) -> None:
        """Read what was written before."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def vms(self) -> list[VmId]:
        """Every VM that was ever here and was not forgotten."""
        return list(self._claims)

    def claim(self, vm_id: VmId) -> Claim:
        """Raises VmNotHereError."""
        try:
            return self._claims[vm_id]
        except KeyError:
            raise VmNotHereError(f"this node knows no VM {vm_id}", next_command="novacron vm list") from None

    def owned(self, vm_id: VmId) -> Claim:
        """The claim, when this node owns the VM; raises VmNotHereError."""
        claim = self.claim(vm_id)
        if claim.ownership is not Ownership.OWNER:
            raise VmNotHereError(f"VM {vm_id} is not owned by this node ({claim.ownership})")
        return claim

    def find_claim(self, vm_id: VmId) -> Claim | None:
        """The claim, if there is one."""
        return self._claims.get(vm_id)

    def attempt(self, migration_id: MigrationId) -> Attempt:
        """Raises MigrationUnknownError."""
        try:
            return self._attempts[migration_id]
        except KeyError:
            raise MigrationUnknownError(f"this node knows no migration {migration_id}") from None

    def find_attempt(self, migration_id: MigrationId) -> Attempt | None:
        """The attempt, if there is one."""
        return self._attempts.get(migration_id)

    def attempts(self) -> list[Attempt]:
        """Every attempt."""
        return list(self._attempts.values())

    def latest(self, vm_id: VmId) -> Attempt | None:
        """The attempt of the highest epoch to move a VM, if there was any."""
        return max((a for a in self._attempts.values() if a.vm_id == vm_id), key=lambda a: a.epoch, default=None)

    def newest(self, attempt: Attempt) -> bool:
        """Whether no later attempt to move that VM is known here."""
        return all(a.epoch <= attempt.epoch for a in self._attempts.values() if a.vm_id == attempt.vm_id)

    def facts(self, vm_id: VmId) -> Facts:
        """What is remembered of a VM."""
        return self._facts.get(vm_id, Facts())

    async def change(self, decide: Callable[[], tuple[Claim | None, Attempt | None, Facts | None]]) -> None:
        """Write what ``decide`` gives, all or nothing; it is called when no other change is under way.

        A cancellation does not undo: the change is either not begun, or made.
        """
        async with self._lock:
            claim, attempt, facts = decide()
            vm_id = claim.vm_id if claim else attempt.vm_id if attempt else None
            if vm_id is None:
                return
            write = asyncio.get_running_loop().run_in_executor(self._thread, self._write, vm_id, claim, attempt, facts)
            try:
                await asyncio.shield(write)
            finally:
                await asyncio.wait((write,))
                if write.exception() is None:
                    self._remember(vm_id, claim, attempt, facts)

    async def settled(self) -> None:
        """Return when no change is under way."""
        async with self._lock:
            return

    async def note(self, vm_id: VmId, **changes: str) -> None:
        """Change facts of a VM that has a claim."""
        await self.change(lambda: (self.claim(vm_id), None, msgspec.structs.replace(self.facts(vm_id), **changes)))

    async def forget(self, vm_id: VmId) -> None:
        """Remove a VM, but not its attempts: a late question must still find its answer."""

        def delete() -> None:
            with self._database:
                for table in ("claims", "facts"):
                    self._database.execute(f"DELETE FROM {table} WHERE vm_id = ?", (vm_id,))  # noqa: S608 - fixed names

        async with self._lock:
            await asyncio.get_running_loop().run_in_executor(self._thread, delete)
            self._claims.pop(vm_id, None)
            self._facts.pop(vm_id, None)

    def _remember(self, vm_id: VmId, claim: Claim | None, attempt: Attempt | None, facts: Facts | None) -> None:
        if claim is not None:
            self._claims[vm_id] = claim
        if attempt is not None:
            self._attempts[attempt.migration_id] = attempt
        if facts is not None:
            self._facts[vm_id] = facts

    def _close(self) -> None:
        self._database.close()

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_SCHEMA)
        for vm_id, body in self._database.execute("SELECT vm_id, body FROM claims"):
            self._claims[vm_id] = msgspec.json.decode(body, type=Claim)
        for migration_id, body in self._database.execute("SELECT migration_id, body FROM attempts"):
            self._attempts[migration_id] = msgspec.json.decode(body, type=Attempt)
        for vm_id, body in self._database.execute("SELECT vm_id, body FROM facts"):
            self._facts[vm_id] = msgspec.json.decode(body, type=Facts)

    def _write(self, vm_id: VmId, claim: Claim | None, attempt: Attempt | None, facts: Facts | None) -> None:
        with self._database:
            if claim is not None:
                row = (vm_id, msgspec.json.encode(claim))
                self._database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", row)
            if attempt is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)",
                    (attempt.migration_id, vm_id, msgspec.json.encode(attempt)),
                )
            if facts is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?)", (vm_id, msgspec.json.encode(facts))
                )

"""Jobs in the cluster's database: where each one stands, and who runs it."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from novacron.database.database import Transaction
from novacron.workflow.errors import JobUnknownError, LeaseLostError

SCHEMA: Final = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, workflow TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, step INTEGER NOT NULL,
    cancel INTEGER NOT NULL, fence_term INTEGER NOT NULL, lease_until REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state, lease_until);
CREATE TABLE job_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, fence_term INTEGER NOT NULL, at REAL NOT NULL,
    step TEXT NOT NULL, what TEXT NOT NULL
)
"""
RUNNING, UNDOING, DONE, FAILED, CANCELLED = "running", "undoing", "done", "failed", "cancelled"
ENDED: Final = frozenset({DONE, FAILED, CANCELLED})


class Body(Struct, frozen=True):
    """What a job works with, and what its steps have given."""

    input: dict[str, Any]
    results: dict[str, dict[str, Any]] = {}
    error_code: str = ""
    error_cause: str = ""
    error_next: str = ""


class JobRecord(Struct, frozen=True):
    """One job; ``step`` is the number of the next step (while undoing: of steps still to be undone)."""

    id: str
    workflow: str
    subject: str
    state: str
    step: int
    cancel: bool
    fence_term: int
    body: Body


_COLUMNS: Final = "id, workflow, subject, state, step, cancel, fence_term, body"


def submit(tx: Transaction, job_id: str, workflow: str, subject: str, body: dict[str, Any]) -> None:
    """Queue a job in the transaction of the state that asks for it; doing it twice is harmless."""
    row = (job_id, workflow, subject, RUNNING, 0, 0, 0, 0.0, msgspec.json.encode(Body(body)))
    tx.execute("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    tx.changed = True


def get(tx: Transaction, job_id: str) -> JobRecord:
    """Raises JobUnknownError."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))  # noqa: S608 - fixed columns
    if not rows:
        raise JobUnknownError(f"there is no job {job_id!r}", next_command="novacron job list")
    return _record(rows[0])


def list_jobs(tx: Transaction, limit: int = 500) -> list[JobRecord]:
    """The newest first."""
    return [_record(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY rowid DESC LIMIT ?", (limit,))]  # noqa: S608 - fixed columns


def request_cancel(tx: Transaction, job_id: str) -> None:
    """Ask for the end; whoever runs it looks between steps. Harmless when it has ended."""
    get(tx, job_id)
    tx.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))
    tx.changed = True


def claim(tx: Transaction, now: float, lease_s: float) -> JobRecord | None:
    """Take a job that nobody runs, under a fence term that its runner before does not have."""
    rows = tx.execute(
        "SELECT id FROM jobs WHERE state IN (?, ?) AND lease_until < ? ORDER BY rowid LIMIT 1", (RUNNING, UNDOING, now)
    )
    if not rows:
        return None
    tx.execute("UPDATE jobs SET fence_term = fence_term + 1, lease_until = ? WHERE id = ?", (now + lease_s, rows[0][0]))
    return get(tx, rows[0][0])


def renew(tx: Transaction, job: JobRecord, until: float) -> None:
    """Keep a job; raises LeaseLostError."""
    check_fence(tx, job)
    tx.execute("UPDATE jobs SET lease_until = ? WHERE id = ?", (until, job.id))


def check_fence(tx: Transaction, job: JobRecord) -> None:
    """Raises LeaseLostError when another runner has the job: a zombie's write must not commit."""
    if tx.execute("SELECT fence_term FROM jobs WHERE id = ?", (job.id,)) != [(job.fence_term,)]:
        raise LeaseLostError(f"job {job.id} is run by another process")


def save(tx: Transaction, job: JobRecord, at: float, what: str, step: str) -> None:
    """Where the job stands now; raises LeaseLostError."""
    check_fence(tx, job)
    lease = 0.0 if job.state in ENDED else None
    tx.execute(
        "UPDATE jobs SET state = ?, step = ?, body = ?, lease_until = COALESCE(?, lease_until) WHERE id = ?",
        (job.state, job.step, msgspec.json.encode(job.body), lease, job.id),
    )
    tx.execute(
        "INSERT INTO job_log (job_id, fence_term, at, step, what) VALUES (?, ?, ?, ?, ?)",
        (job.id, job.fence_term, at, step, what),
    )
    tx.changed = True


def _record(row: tuple[Any, ...]) -> JobRecord:
    key, workflow, subject, state, step, cancel, term, body = row
    return JobRecord(key, workflow, subject, state, step, bool(cancel), term, msgspec.json.decode(body, type=Body))

"""Jobs as people see them: the workflows' journal, read."""

from novacron.database.database import Transaction
from novacron.protocol.resources import Job, Problem
from novacron.workflow import journal
from novacron.workflow.journal import JobRecord


def get_job(tx: Transaction, job_id: str) -> Job:
    """Raises JobUnknownError."""
    return _job(journal.get(tx, job_id))


def list_jobs(tx: Transaction) -> list[Job]:
    """The newest first."""
    return [_job(record) for record in journal.list_jobs(tx)]


def _job(record: JobRecord) -> Job:
    body = record.body
    problem = Problem(body.error_code, body.error_cause, body.error_next) if body.error_code else None
    done = list(body.results)
    return Job(record.id, record.workflow, record.subject, record.state, done[-1] if done else "", problem)

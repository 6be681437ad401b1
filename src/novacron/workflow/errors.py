"""Errors of workflows.

WorkflowError
├── JobUnknownError
├── LeaseLostError        another process runs this job now: this one must stop
└── JobCancelledError     somebody asked for the end; what was done is undone
"""

from novacron.core.errors import NotFoundError, NovaCronError


class WorkflowError(NovaCronError):
    """A workflow could not go on."""

    code = "workflow"


class JobUnknownError(WorkflowError, NotFoundError):
    """There is no such job."""

    code = "job_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class LeaseLostError(WorkflowError):
    """Another process runs this job now."""

    code = "lease_lost"


class JobCancelledError(WorkflowError):
    """Somebody asked for the end."""

    code = "cancelled"

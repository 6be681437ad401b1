"""What a node reports of work that has failed there."""

from novacron.core.errors import InternalError, RemoteError
from novacron.protocol.backup import BackupReport
from novacron.protocol.checkpoint import FAILED, CheckpointReport, RestoreReport
from novacron.protocol.repository import RepositoryReport


def raise_failure(report: BackupReport | CheckpointReport | RepositoryReport | RestoreReport) -> None:
    """Raises RemoteError with what it failed for, if it has."""
    if report.state == FAILED:
        raise RemoteError(
            report.error_cause,
            code=report.error_code,
            exit_code=InternalError.exit_code,
            http_status=InternalError.http_status,
            next_command=report.error_next,
        )

"""Errors of the command line.

CliError
├── ContextUnknownError       no context of that name, or none at all
├── ContextAmbiguousError     several contexts, and none chosen
├── ContextRefusedError       the cluster does not take this context's token
├── ApiUnreachableError       nothing answers at the context's address (retryable)
├── ApiAnswerError            what answers does not speak as NovaCron does
├── WorkFailedError           long work ended badly; code and cause are the job's own
├── PartlyDoneError           long work of many parts: some were done, some were not
├── FaultsFoundError          what was checked is not as it was stored
├── ConsoleClosedError        the console ended by an error at the other side
└── UnverifiedError           the migration is done, and nobody has seen the guest well
    VersionGoneError          the changes since a version are not known any more: list again
"""

from novacron.core.errors import (
    InternalError,
    InvalidInputError,
    NotFoundError,
    NovaCronError,
    RefusedError,
    RemoteError,
    UnreachableError,
    VerificationError,
)


class CliError(NovaCronError):
    """The command line could not do it."""

    code = "cli"


class ContextUnknownError(CliError, NotFoundError):
    """No context of that name, or none at all."""

    code = "context_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class ContextAmbiguousError(CliError, InvalidInputError):
    """Several contexts, and none chosen."""

    code = "context_ambiguous"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class ContextRefusedError(CliError, RefusedError):
    """The cluster does not take this context's token."""

    code = "context_refused"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class ApiUnreachableError(CliError, UnreachableError):
    """Nothing answers at the context's address."""

    code = "api_unreachable"
    exit_code = UnreachableError.exit_code
    http_status = UnreachableError.http_status
    retryable = True


class ApiAnswerError(CliError, InternalError):
    """What answers does not speak as NovaCron does."""

    code = "api_answer"


class WorkFailedError(CliError):
    """Long work ended badly; code and cause are the job's own."""

    def __init__(self, cause: str, *, code: str, next_command: str = "") -> None:
        super().__init__(cause, next_command=next_command)
        self.code = code  # type: ignore[misc]  # the job's own


class PartlyDoneError(CliError):
    """Long work of many parts: some were done, some were not."""

    code = "done_in_part"
    exit_code = 7


class FaultsFoundError(CliError, VerificationError):
    """What was checked is not as it was stored."""

    code = "faults_found"
    exit_code = VerificationError.exit_code


class ConsoleClosedError(CliError):
    """The console ended by an error at the other side."""

    code = "console_closed"


class UnverifiedError(CliError, VerificationError):
    """The migration is done, and nobody has seen the guest well."""

    code = "migration_unverified"
    exit_code = VerificationError.exit_code


class VersionGoneError(RemoteError):
    """The changes since a version are not known any more: look, and watch from there."""

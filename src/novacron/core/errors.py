"""The root of every error that a user of NovaCron may meet.

NovaCronError
├── InvalidInputError     the request can never work as it was written        exit 2, HTTP 400
├── NotFoundError         what it names does not exist                        exit 3, HTTP 404
├── RefusedError          the caller may not do this                          exit 4, HTTP 403
├── ConflictError         it may work once the state has changed              exit 5, HTTP 409
├── UnreachableError      a process or a peer did not answer (retryable)      exit 6, HTTP 503
├── VerificationError     the work was done, and its result is wrong          exit 8, HTTP 500
└── InternalError         a fault of NovaCron itself                          exit 1, HTTP 500

Every package derives its own tree from these in its ``errors.py``. ``code`` is stable: scripts may match it.
"""

from typing import ClassVar


class NovaCronError(Exception):
    """An error with a stable code, its cause in one sentence, and the one next command."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, cause: str, *, next_command: str = "", **values: object) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_command = next_command
        self.values = values


class InvalidInputError(NovaCronError):
    """The request can never work as it was written."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class NotFoundError(NovaCronError):
    """What the request names does not exist."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class RefusedError(NovaCronError):
    """The caller may not do this."""

    code = "refused"
    exit_code = 4
    http_status = 403


class ConflictError(NovaCronError):
    """The request may work once the state has changed."""

    code = "conflict"
    exit_code = 5
    http_status = 409


class UnreachableError(NovaCronError):
    """A process or a peer did not answer; the same call may work later."""

    code = "unreachable"
    exit_code = 6
    http_status = 503
    retryable = True


class VerificationError(NovaCronError):
    """The work was done, and its result is wrong."""

    code = "verification_failed"
    exit_code = 8


class InternalError(NovaCronError):
    """A fault of NovaCron itself."""


class RemoteError(NovaCronError):
    """An error that another process reported: it keeps that process's code, exit code and HTTP status."""

    code = "remote"

    def __init__(
        self,
        cause: str,
        *,
        code: str,
        exit_code: int,
        http_status: int,
        retryable: bool = False,
        next_command: str = "",
    ) -> None:
        super().__init__(cause, next_command=next_command)
        self.code = code  # type: ignore[misc]  # a remote error's class is not known here, its values are
        self.exit_code = exit_code  # type: ignore[misc]
        self.http_status = http_status  # type: ignore[misc]
        self.retryable = retryable  # type: ignore[misc]

"""Errors of the API itself.

ApiError
├── NotSignedInError            no token, or one that is not known
├── NoPermissionError           the route declares no permission that the caller has
├── IdempotencyMismatchError    that key came with another request before
└── TooLargeError               the body is larger than this route takes
"""

from novacron.core.errors import ConflictError, InvalidInputError, NovaCronError, RefusedError


class ApiError(NovaCronError):
    """The API could not do it."""

    code = "api"


class NotSignedInError(ApiError, RefusedError):
    """No token, or one that is not known."""

    code = "not_signed_in"
    exit_code = RefusedError.exit_code
    http_status = 401


class NoPermissionError(ApiError, RefusedError):
    """The route declares no permission that the caller has."""

    code = "no_permission"
    exit_code = RefusedError.exit_code
    http_status = RefusedError.http_status


class IdempotencyMismatchError(ApiError, ConflictError):
    """That key came with another request before."""

    code = "idempotency_mismatch"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class TooLargeError(ApiError, InvalidInputError):
    """The body is larger than this route takes."""

    code = "too_large"
    exit_code = InvalidInputError.exit_code
    http_status = 413

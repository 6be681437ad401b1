"""Errors as RFC 9457 problem documents, all of one form."""

from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.response import Redirect

from novacron.api.errors import NotSignedInError
from novacron.core.errors import InternalError, InvalidInputError, NotFoundError, NovaCronError

log = structlog.get_logger()
PROBLEM_TYPE = "application/problem+json"
_NOT_FOUND, _NOT_ALLOWED, _TOO_LARGE = 404, 405, 413

AnyRequest = Request[Any, Any, Any]


def problem(error: NovaCronError) -> Response[dict[str, Any]]:
    """The document of an error."""
    body = {
        "type": f"urn:novacron:problem:{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.http_status,
        "code": error.code,
        "cause": error.cause,
        "next_command": error.next_command,
        "exit_code": error.exit_code,
    }
    return Response(body, status_code=error.http_status, media_type=PROBLEM_TYPE)


def on_known(request: AnyRequest, error: NovaCronError) -> Response[Any]:
    """An error of ours; a page without a session leads to the place where one is begun."""
    if isinstance(error, NotSignedInError) and request.route_handler.opt.get("permission") == "page":
        return Redirect("/sign-in")
    return problem(error)


def on_http(_: AnyRequest, error: HTTPException) -> Response[Any]:
    """An error that the framework found before our code was asked."""
    cause = error.detail or "the request cannot be read"
    if isinstance(error, ValidationException):
        return problem(InvalidInputError(_fields(error) or cause))
    if error.status_code == _NOT_FOUND:
        return problem(NotFoundError("there is no such path", next_command="GET /openapi/v1.json"))
    known = InvalidInputError(cause)
    known.http_status = error.status_code  # type: ignore[misc]  # the framework's status says more than the class
    return problem(known)


def on_fault(request: AnyRequest, error: Exception) -> Response[Any]:
    """A fault of ours: the log has it, the answer does not."""
    log.error("request_failed", path=request.url.path, exc_info=error)
    return problem(InternalError("the controller failed by a fault of its own; its log has the details"))


def _fields(error: ValidationException) -> str:
    """What was wrong, field by field."""
    extra: Any = error.extra
    if not isinstance(extra, list):
        return ""
    return "; ".join(
        f"{entry.get('key', '')}: {entry.get('message', '')}".removeprefix(": ") for entry in extra if entry
    )


HANDLERS: dict[int | type[Exception], Any] = {
    NovaCronError: on_known,
    HTTPException: on_http,
    Exception: on_fault,
}
JSON = MediaType.JSON

"""The REST API as the commands use it. Imported when a command runs, not when it is only explained."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import msgspec
from msgspec import Struct

from novacron.cli.contexts import Context
from novacron.cli.errors import ApiAnswerError, ApiUnreachableError, ContextRefusedError, VersionGoneError
from novacron.cli.kinds import Found, Kind, at
from novacron.core.errors import RemoteError

API: Final = "/api/v1"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
PAGE: Final = 500
_UNAUTHORIZED: Final = 401
_GONE: Final = 410

T = TypeVar("T", bound=Struct)


class _Versioned(Struct, frozen=True):
    resource_version: int = 0


class _Page(Struct, frozen=True):
    items: list[msgspec.Raw]
    cursor: str | None = None
    resource_version: int = 0


class _Problem(Struct, frozen=True):
    code: str
    cause: str
    exit_code: int = 1
    next_command: str = ""


class Client:
    """One cluster's API.

    Every call raises RemoteError (with the cluster's own code and exit code), ApiUnreachableError, ContextRefusedError
    or ApiAnswerError.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._http = httpx.Client(
            base_url=context.url.rstrip("/") + API,
            headers={"Authorization": f"Bearer {context.token}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,  # a cluster's API is no place in the web: proxies would only see its token
        )

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def get(self, kind: Kind[T], reference: str) -> Found[T]:
        """One resource, by name or id."""
        return self.read(at(kind, reference), kind.struct)

    def read(self, path: str, struct: type[T]) -> Found[T]:
        """What stands at ``path``."""
        return _found(self._send("GET", path), struct)

    def list(self, kind: Kind[T]) -> list[Found[T]]:
        """All of a kind, page after page."""
        found: list[Found[T]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self._page(kind.path, {"limit": PAGE, **({"cursor": cursor} if cursor else {})})
            found += [_decode_found(item, kind.struct) for item in page.items]
            cursor = page.cursor
        return found

    def metrics(self) -> str:
        """What Prometheus reads; it stands beside the API."""
        return self._send("GET", f"{self.context.url.rstrip('/')}/metrics").text

    def current_version(self) -> int:
        """Of the cluster's last change."""
        return self._page("/vms", {"limit": 1}).resource_version

    def post(
        self, path: str, struct: type[T], body: Struct | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Found[T]:
        """Ask for a change. Its key makes the repeat of a request whose answer was lost no second change."""
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        return _found(self._send("POST", path, content=content, headers=headers, timeout=timeout), struct)

    def delete(self, path: str, struct: type[T], **query: str) -> Found[T]:
        """Remove what stands at ``path``; the job that does it."""
        return _found(self._send("DELETE", path, params=query), struct)

    def remove(self, path: str) -> None:
        """Remove what stands at ``path``, now."""
        self._send("DELETE", path)

    def upload(self, path: str, struct: type[T], query: dict[str, str], parts: Iterator[bytes], size: int) -> Found[T]:
        """Send a file of ``size`` bytes; the answer comes once it is stored."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        with self._translated():
            response = self._http.post(path, params=query, content=parts, headers=headers, timeout=timeout)
        return _found(self._checked(response), struct)

    def download(self, path: str, target: Path) -> int:
        """POST to ``path`` and keep the answer in ``target`` (new, its owner's only); how many bytes."""
        written = 0
        with self.stream("POST", path) as response, target.open("xb") as file:
            target.chmod(0o600)
            for part in response.iter_bytes():
                written += file.write(part)
        return written

    @contextmanager
    def stream(
        self, method: str, path: str, *, params: dict[str, str] | None = None, read_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes."""
        timeout = httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._translated(), self._http.stream(method, path, params=params, timeout=timeout) as response:
            if response.is_error:
                response.read()
            yield self._checked(response)

    def _page(self, path: str, query: dict[str, Any]) -> _Page:
        return _decode(self._send("GET", path, params=query).content, _Page)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._translated():
            try:
                response = self._http.request(method, path, **request)
            except httpx.RemoteProtocolError:  # an idle connection that the server has just closed
                if method == "DELETE":
                    raise
                response = self._http.request(method, path, **request)
        return self._checked(response)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ApiUnreachableError(
                f"nothing answers at {self.context.url} (context {self.context.name})", next_command="novacron up"
            ) from error
        except httpx.TransportError as error:
            raise ApiUnreachableError(
                f"{self.context.url} (context {self.context.name}) does not answer: {error or type(error).__name__}",
                next_command="novacron doctor",
            ) from error
        except httpx.InvalidURL as error:
            raise ApiUnreachableError(
                f"{self.context.url!r} (context {self.context.name}) is no address", next_command="novacron up"
            ) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        """Raises what the answer tells of."""
        if response.is_success:
            return response
        if response.status_code == _UNAUTHORIZED:
            raise ContextRefusedError(
                f"{self.context.url} refuses the token of context {self.context.name}",
                next_command=f"novacron context show {self.context.name}",
            )
        raise remote_error(response.status_code, response.content, self.context)


def remote_error(status: int, content: bytes, context: Context) -> RemoteError | ApiAnswerError:
    """The error that a problem document tells of."""
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ApiAnswerError(
            f"what answers at {context.url} is not NovaCron: HTTP status {status}",
            next_command=f"novacron context show {context.name}",
        )
    error_class = VersionGoneError if status == _GONE else RemoteError
    return error_class(
        problem.cause,
        code=problem.code,
        exit_code=problem.exit_code,
        http_status=status,
        next_command=problem.next_command,
    )


def _found(response: httpx.Response, struct: type[T]) -> Found[T]:
    found = _decode_found(response.content, struct)
    return msgspec.structs.replace(found, location=response.headers.get("location", "").removeprefix(API))


def _decode_found(content: bytes | msgspec.Raw, struct: type[T]) -> Found[T]:
    return Found(_decode(content, struct), _decode(content, _Versioned).resource_version)


def _decode(content: bytes | msgspec.Raw, struct: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=struct)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ApiAnswerError(
            f"the answer is not a {struct.__name__}: {error}", next_command="novacron doctor"
        ) from error

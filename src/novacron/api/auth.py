"""Who may call which route: each declares its permission, and one that declares none is closed."""

from typing import Any, Final
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from novacron.api.errors import NoPermissionError, NotSignedInError
from novacron.control.controller import Controller

PUBLIC: Final = {"permission": "public"}
READ: Final = {"permission": "read"}
WRITE: Final = {"permission": "write"}
ADMIN: Final = {"permission": "admin"}
PERMISSIONS: Final = frozenset({"public", "page", "read", "write", "admin"})
SIGN_IN: Final = "novacron context show (it says which token is used)"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Connection = ASGIConnection[Any, Any, Any, Any]


def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """Raises NotSignedInError, NoPermissionError. There is one role today: who has the token may do everything."""
    permission = handler.opt.get("permission")
    if permission == "public":
        return
    if permission not in PERMISSIONS:
        raise NoPermissionError("this route is closed: it declares no permission")
    controller: Controller = connection.app.state.controller
    token, by_cookie = _token(connection, cookie_name(controller))
    if not token:
        raise NotSignedInError("sign in first: the request carries no token", next_command=SIGN_IN)
    if not controller.admin_token_matches(token):
        raise NotSignedInError("the token is not one of this cluster", next_command=SIGN_IN)
    if by_cookie and not _from_own_page(connection):
        raise NoPermissionError("a page of another site may not act here")


def cookie_name(controller: Controller) -> str:
    """Of the session: a browser sends the cookies of one host to all its ports, and two clusters may be there."""
    return f"novacron-{controller.cluster.name}"


def _token(connection: Connection, cookie: str) -> tuple[str, bool]:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip(), False
    return connection.cookies.get(cookie, ""), True


def _from_own_page(connection: Connection) -> bool:
    """A browser sends the cookie by itself: what changes something, or opens a socket, must come from our own page."""
    if isinstance(connection, Request) and connection.method in _SAFE_METHODS:
        return True
    origin = connection.headers.get("origin", "")
    return urlsplit(origin).netloc == connection.headers.get("host", "") if origin else False

"""The session of a browser: a token, kept in a cookie that scripts cannot read and other sites cannot send."""

from litestar import Response, get
from litestar.datastructures import Cookie
from litestar.response import Redirect

from novacron.api.auth import PUBLIC, cookie_name
from novacron.api.errors import NotSignedInError
from novacron.api.given import FromQuery, ServedController


@get("/login", opt=PUBLIC, include_in_schema=False)
async def sign_in(controller: ServedController, token: FromQuery[str] = "") -> Response[None]:
    """Begin a session; raises NotSignedInError."""
    if not controller.admin_token_matches(token.strip()):
        raise NotSignedInError(
            "the token is not one of this cluster", next_command="novacron context show (on the controller's machine)"
        )
    session = Cookie(cookie_name(controller), value=token.strip(), path="/", httponly=True, samesite="strict")
    return Redirect("/", status_code=303, cookies=[session])


@get("/healthz", opt=PUBLIC, include_in_schema=False)
async def healthy() -> dict[str, str]:
    """It answers."""
    return {"status": "ok"}

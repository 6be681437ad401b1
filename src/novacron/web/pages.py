"""The page's routes: plain files of this package, under a policy that lets nothing else in."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from litestar import MediaType, Response, Router, get
from litestar.static_files import create_static_files_router
from litestar.types import ControllerRouterHandler

STATIC: Final = Path(str(files("novacron.web") / "static"))
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a browser asks again each time, and is told that nothing has changed
}


@get("/", opt={"permission": "page"}, include_in_schema=False, sync_to_thread=True)
def overview() -> Response[str]:
    """The live page; who has no session is led to the sign-in."""
    return _page("index.html")


@get("/sign-in", opt={"permission": "public"}, include_in_schema=False, sync_to_thread=True)
def sign_in() -> Response[str]:
    """Where a token is typed."""
    return _page("sign-in.html")


def routes() -> Sequence[ControllerRouterHandler]:
    """Of the page, for the application that serves it."""
    static: Router = create_static_files_router(
        "/static",
        [STATIC],
        opt={"permission": "public"},
        include_in_schema=False,
        after_request=_with_headers,
    )
    return (overview, sign_in, static)


def _page(name: str) -> Response[str]:
    return Response((STATIC / name).read_text(), media_type=MediaType.HTML, headers=HEADERS)


def _with_headers(response: Response[object]) -> Response[object]:
    response.headers.update(HEADERS)
    return response

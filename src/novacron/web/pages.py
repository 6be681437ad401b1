"""Routes of the page."""

from collections.abc import Sequence

from litestar.types import ControllerRouterHandler


def routes() -> Sequence[ControllerRouterHandler]:
    """None yet: the controller serves its API alone."""
    return ()

"""The forms of answers: a resource with its version, a page of a list, long work."""

from typing import Any, Final, TypeVar

import msgspec
from litestar import Response
from msgspec import Struct

from novacron.api.given import Answer, Asked
from novacron.control.controller import Controller
from novacron.core.errors import InvalidInputError
from novacron.database.database import Transaction
from novacron.database.errors import VersionConflictError
from novacron.database.resources import Collection, Versioned, current_version, incarnation

T = TypeVar("T", bound=Struct)
LIMIT: Final = 100
MOST: Final = 500
API: Final = "/api/v1"


class Page(Struct, frozen=True):
    """Part of a list; ``cursor`` asks for the next part."""

    items: list[dict[str, Any]]
    cursor: str | None
    resource_version: int
    incarnation: str


def fields(found: Versioned[T]) -> dict[str, Any]:
    """The resource's own fields and ``resource_version``."""
    return {**msgspec.to_builtins(found.value), "resource_version": found.version}


async def one(
    controller: Controller, kind: Collection[T], reference: str, *, status: int = 200, location: str = ""
) -> Answer:
    """A resource as it is now; raises ResourceUnknownError."""
    found = await controller.database.read(lambda tx: kind.get(tx, reference))
    headers = {"ETag": f'"{found.version}"'}
    if location:
        headers["Location"] = location
    return Response(fields(found), status_code=status, headers=headers)


async def many(controller: Controller, kind: Collection[T], cursor: str, limit: int) -> Page:
    """A page of a list."""
    if not 1 <= limit <= MOST:
        raise InvalidInputError(f"limit must be between 1 and {MOST}")

    def look(tx: Transaction) -> tuple[list[Versioned[T]], int]:
        return kind.list(tx, after=cursor, limit=limit + 1), current_version(tx)

    found, version = await controller.database.read(look)
    name = await controller.database.read(incarnation)
    items = [fields(item) for item in found[:limit]]
    return Page(items, items[-1]["id"] if len(found) > limit else None, version, name)


async def check_version(request: Asked, controller: Controller, kind: Collection[T], reference: str) -> None:
    """``If-Match``: the caller acts on what it has seen, or not at all. Raises VersionConflictError."""
    wanted = request.headers.get("if-match", "")
    if wanted in {"", "*"}:
        return
    found = await controller.database.read(lambda tx: kind.get(tx, reference))
    if wanted.strip().strip('"') != str(found.version):
        raise VersionConflictError(
            f"{kind.kind} {reference} has changed: it is at version {found.version}, not {wanted}",
            next_command=f"novacron {kind.kind} show {reference}",
        )

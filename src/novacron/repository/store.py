"""Where the objects of a repository lie: a few operations that a folder and an object store both have."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*){0,3}")


def checked(name: str) -> str:
    """The name; raises ValueError when no object can have it."""
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot be the name of an object")
    return name


class ObjectExistsError(Exception):
    """An object of that name is there; it was left alone."""


class ObjectMissingError(Exception):
    """No object of that name is there."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object; ``modified_at`` in seconds since 1970, by the store's clock."""

    name: str
    size_bytes: int
    modified_at: float


class Store(Protocol):
    """Objects by name (see ``NAME``), whole or not there, never changed. Calls block: make them in threads.

    Every method raises StoreError when the store fails, and RepositoryFullError when it is full.
    """

    def put(self, name: str, data: bytes) -> None:
        """Durable when this returns; of two that put one name, one gets ObjectExistsError."""
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset`` on, to the end or at most ``length``; raises ObjectMissingError."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose name begins with ``prefix`` (a name and a slash), also one that was put just now."""
        ...

    def delete(self, name: str) -> None:
        """Remove; harmless when it is not there."""
        ...

"""Care for a store behind a network: it fails for a while, loses answers, cuts things short, says what is not so.

What may pass is tried again, ever more slowly. After a put it is looked whether the object's end lies where it must. A
name that is taken, when an earlier answer was lost, is another's only if its content is.
"""

import time
from collections.abc import Callable, Iterator
from secrets import SystemRandom
from typing import Final, TypeVar

from novacron.repository.errors import StoreError, StoreUnfitError
from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store, StoredObject

ATTEMPTS: Final = 6
FIRST_WAIT_S: Final = 0.25  # doubled each time, and drawn between half of that and all: about 6 s in total
END_BYTES: Final = 64  # of an object, which no other has: it ends in a tag or a hash
_draw: Final = SystemRandom().uniform
T = TypeVar("T")


class CarefulStore:
    """``bare``, with care; see ``store.Store``."""

    def __init__(self, bare: Store, sleep: Callable[[float], None] = time.sleep) -> None:
        self.bare = bare
        self._sleep = sleep

    def put(self, name: str, data: bytes) -> None:
        """When this returns, the object was seen there; what a broken attempt left of it is removed."""
        sent = False

        def attempt() -> None:
            nonlocal sent
            known, sent = sent, True
            try:
                self.bare.put(name, data)
            except ObjectExistsError:
                if not known:
                    raise
                self._look(name, data, 0)
            else:
                self._look(name, data, max(0, len(data) - END_BYTES))

        self._trying(attempt)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As ``bare``."""
        return self._trying(lambda: self.bare.get(name, offset, length))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All of it, or none."""
        return iter(self._trying(lambda: [*self.bare.list(prefix)]))

    def delete(self, name: str) -> None:
        """As ``bare``."""
        self._trying(lambda: self.bare.delete(name))

    def _look(self, name: str, data: bytes, offset: int) -> None:
        """Is it there, from ``offset`` on? Raises StoreError when it is not, ObjectExistsError when it is another's."""
        try:
            found = self._part(name, offset, len(data) - offset + 1)
            if found == data[offset:]:
                return
            found = self.bare.get(name)
        except ObjectMissingError:
            raise StoreError(f"the store said that {name} is stored, and does not have it") from None
        if len(found) >= len(data) or not data.startswith(found):
            raise ObjectExistsError(name)
        self.bare.delete(name)
        raise StoreError(f"the store has kept {len(found)} of the {len(data)} bytes of {name}")

    def _part(self, name: str, offset: int, length: int) -> bytes:
        try:
            return self.bare.get(name, offset, length)
        except StoreUnfitError:  # it reads only whole objects
            return self.bare.get(name)[offset : offset + length]

    def _trying(self, attempt: Callable[[], T]) -> T:
        for number in range(ATTEMPTS - 1):
            try:
                return attempt()
            except StoreError as error:
                if not error.retryable:
                    raise
            self._sleep(FIRST_WAIT_S * 2**number * _draw(0.5, 1))
        return attempt()

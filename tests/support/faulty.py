"""A store that does to its callers what networks and services do, drawn by a seed."""

import contextlib
import random
from collections.abc import Callable, Iterator
from threading import Lock

from novacron.repository.errors import StoreError
from novacron.repository.store import ObjectExistsError, Store, StoredObject

OUTAGE_CALLS = 40


class FaultyStore:
    """``rate`` of calls goes wrong, but for one name not more than ``most`` (patience need not run out then).

    With ``outages``, which is a rate too, it sometimes fails for long.

    refuses   nothing is done, and an error says so
    loses     it is done, and the answer is lost
    lies      nothing is done, and the answer says that it was
    cuts      a part of an object is put, and an error says that it broke off
    halves    a part of an object is put, and the answer says that all was
    late      an error now, and it is done when several other calls have been
    """

    def __init__(self, store: Store, seed: int, rate: float, *, most: int = 4, outages: float = 0) -> None:
        self._store = store
        self._left = dict[str, int]()
        self._most = most
        self._draw = random.Random(seed)
        self._rate = rate
        self._outages = outages
        self._outage = 0
        self._late: list[tuple[int, Callable[[], None]]] = []
        self._lock = Lock()
        self.calls = 0
        self.faults: dict[str, int] = {}

    def put(self, name: str, data: bytes) -> None:
        match self._fault(name, "refuses", "loses", "lies", "cuts", "halves", "late"):
            case "loses":
                self._store.put(name, data)
            case "lies":
                return
            case "cuts" | "halves" as fault:
                self._store.put(name, data[: len(data) // 2])
                if fault == "halves":
                    return
            case "late":
                with self._lock:
                    self._late.append((self.calls + self._draw.randrange(1, 20), lambda: self._put_late(name, data)))
            case "":
                self._store.put(name, data)
                return
        raise StoreError("the network is faulty")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self._fault(name, "refuses"):
            raise StoreError("the network is faulty")
        return self._store.get(name, offset, length)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """It breaks off in the middle."""
        found = [*self._store.list(prefix)]
        broken = self._fault(prefix, "cuts")
        yield from found[: len(found) // 2] if broken else found
        if broken:
            raise StoreError("the network is faulty")

    def delete(self, name: str) -> None:
        fault = self._fault(name, "refuses", "loses")
        if fault != "refuses":
            self._store.delete(name)
        if fault:
            raise StoreError("the network is faulty")

    def settle(self) -> None:
        """What is late arrives."""
        self._arrive(lambda _: True)

    def _put_late(self, name: str, data: bytes) -> None:
        with contextlib.suppress(ObjectExistsError):
            self._store.put(name, data)

    def _fault(self, name: str, *kinds: str) -> str:
        """One of these, or none."""
        with self._lock:
            self.calls += 1
            self._arrive(lambda due: due <= self.calls)
            if self._draw.random() < self._outages:
                self._outage = OUTAGE_CALLS
            self._outage -= 1
            fault = ""
            if self._outage > 0:
                fault = kinds[0]
            elif self._draw.random() < self._rate and self._left.setdefault(name, self._most):
                self._left[name] -= 1
                fault = self._draw.choice(kinds)
            self.faults[fault] = self.faults.get(fault, 0) + 1
            return fault

    def _arrive(self, is_due: Callable[[int], bool]) -> None:
        due = [late for late in self._late if is_due(late[0])]
        self._late = [late for late in self._late if late not in due]
        for _, put in due:
            put()

"""What makes up for a weak store, so that one writer at a time is as safe with it as with any."""

from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import Final

from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store, StoredObject

LOCKS: Final = 64
KEPT: Final = 4  # whole objects: 70 MB of packs, as a restore reads several at a time


class AskingStore:
    """Asks whether a name is taken before it puts. Threads of this process exclude one another; others do not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks = tuple(Lock() for _ in range(LOCKS))

    def put(self, name: str, data: bytes) -> None:
        """Only where nothing is."""
        with self._locks[hash(name) % LOCKS]:
            try:
                self._store.get(name, 0, 1)
            except ObjectMissingError:
                self._store.put(name, data)
                return
        raise ObjectExistsError(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As it is."""
        return self._store.get(name, offset, length)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """As it is."""
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        """As it is."""
        self._store.delete(name)


class WholeReadStore:
    """Reads whole objects where parts are wanted, and keeps the last few."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()  # also held while one is read: others want the same one, as a rule

    def put(self, name: str, data: bytes) -> None:
        """As it is."""
        self._store.put(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """A part of the whole."""
        if offset == 0 and length is None:
            return self._store.get(name)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = self._store.get(name)
            self._kept.move_to_end(name)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            data = self._kept[name]
        return data[offset:] if length is None else data[offset : offset + length]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """As it is."""
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        """Here, too."""
        with self._lock:
            self._kept.pop(name, None)
        self._store.delete(name)

"""A store in memory, which can be made to break at any call, and lets its bytes be changed."""

import time
from collections.abc import Iterator

from novacron.repository.errors import StoreError
from novacron.repository.store import ObjectExistsError, ObjectMissingError, StoredObject, checked


class MemoryStore:
    """See ``repository.store.Store``. ``breaks_at``: the number of the call that fails, before or after its work."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.calls = 0
        self.breaks_at = -1
        self.after = False
        self.before_call = lambda _name: None

    def put(self, name: str, data: bytes) -> None:
        with self._call(f"put {checked(name)}"):
            kept = (data, time.time())
            if self.objects.setdefault(name, kept) is not kept:
                raise ObjectExistsError(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._call(f"get {name}"):
            if name not in self.objects:
                raise ObjectMissingError(name)
            data = self.objects[name][0]
            return data[offset:] if length is None else data[offset : offset + length]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._call(f"list {prefix}"):
            found = [(name, *kept) for name, kept in self.objects.items() if name.startswith(prefix)]
        return iter([StoredObject(name, len(data), at) for name, data, at in found])

    def delete(self, name: str) -> None:
        with self._call(f"delete {name}"):
            self.objects.pop(name, None)

    def flip(self, name: str, at: int) -> None:
        """Change all bits of one byte."""
        data, put_at = self.objects[name]
        self.objects[name] = (data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], put_at)

    def _call(self, what: str) -> "_Call":
        self.before_call(what)
        self.calls += 1
        return _Call(self, breaks=self.calls == self.breaks_at)


class OverwritingStore(MemoryStore):
    """A weak one: it takes no notice of what is there."""

    def put(self, name: str, data: bytes) -> None:
        self.objects.pop(name, None)
        super().put(name, data)


class _Call:
    def __init__(self, store: MemoryStore, *, breaks: bool) -> None:
        self._after, self._breaks = store.after, breaks

    def __enter__(self) -> None:
        if self._breaks and not self._after:
            raise StoreError("broken before")

    def __exit__(self, *_: object) -> None:
        if self._breaks and self._after:
            raise StoreError("broken after")

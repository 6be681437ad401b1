"""Proving what a store can do, before anything is trusted to it.

Without this it is no store for a repository: to give back what was put, to list it at once, to delete it. Without these
it is a weak one: to let one of several win that put one name at a time, and to read a part of an object.
"""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from novacron.repository.careful import CarefulStore
from novacron.repository.errors import StoreError, StoreUnfitError
from novacron.repository.store import ObjectExistsError, ObjectMissingError, Store
from novacron.repository.traits import Traits

FOLDER: Final = "probe/"
RACERS: Final = 16
RACES: Final = 3  # at most: one in which an answer got lost says nothing
SIZE_BYTES: Final = 64 * 1024
OFFSET, LENGTH = 40_000, 1_000  # of a part


def probe(store: Store, *, now: float) -> Traits:
    """About 30 calls, in a folder of its own that is removed. Raises StoreUnfitError; StoreError when it fails."""
    bare = (
        store.bare if isinstance(store, CarefulStore) else store
    )  # care would hide what the store itself lets through
    with _folder(store) as folder:
        name, data = f"{folder}first", secrets.token_bytes(SIZE_BYTES)
        store.put(name, data)
        _must("give back what was put", _content(store, name) == data)
        _must("list what was put just now", _listed(store, folder) == {name: SIZE_BYTES})
        ranged_reads = _reads_parts(store, name, data)
        conditional_create = _keeps_first(bare, name) and _lets_one_win(bare, folder)
        store.delete(name)
        _must("delete", _content(store, name) is None and name not in _listed(store, folder))
    return Traits(conditional_create, ranged_reads, now)


@contextmanager
def _folder(store: Store) -> Iterator[str]:
    folder = f"{FOLDER}{secrets.token_hex(8)}/"
    try:
        yield folder
    finally:
        with contextlib.suppress(StoreError):  # what led here counts more
            for name in _listed(store, folder):
                store.delete(name)


def _reads_parts(store: Store, name: str, data: bytes) -> bool:
    try:
        return (
            store.get(name, OFFSET, LENGTH) == data[OFFSET : OFFSET + LENGTH]
            and store.get(name, SIZE_BYTES - 10, LENGTH) == data[-10:]
            and store.get(name, SIZE_BYTES + 1, LENGTH) == b""
        )
    except StoreUnfitError:
        return False


def _keeps_first(bare: Store, name: str) -> bool:
    try:
        bare.put(name, b"second")
    except ObjectExistsError:
        return True
    return False


def _lets_one_win(bare: Store, folder: str) -> bool:
    """Of writers that put one name at the same time; raises StoreError when none can be told to have won."""
    failure = StoreError("the store lets nobody put a name that several ask for")
    for number in range(RACES):
        name = f"{folder}race-{number}"
        ends = _race(bare, name)
        won = [end for end in ends if isinstance(end, bytes)]
        if won:
            return len(won) == 1 and _content(bare, name) == won[0]
        failure = next((end for end in ends if isinstance(end, StoreError)), failure)
    raise failure


def _race(bare: Store, name: str) -> list[bytes | StoreError | None]:
    """What each had put, why it failed, or that it came too late."""
    barrier = threading.Barrier(RACERS)

    def put(content: bytes) -> bytes | StoreError | None:
        barrier.wait()
        try:
            bare.put(name, content)
        except ObjectExistsError:
            return None
        except StoreError as error:
            return error
        return content

    with ThreadPoolExecutor(RACERS) as racers:
        return [*racers.map(put, [secrets.token_bytes(SIZE_BYTES) for _ in range(RACERS)])]


def _listed(store: Store, folder: str) -> dict[str, int]:
    return {stored.name: stored.size_bytes for stored in store.list(folder)}


def _content(store: Store, name: str) -> bytes | None:
    try:
        return store.get(name)
    except ObjectMissingError:
        return None


def _must(what: str, done: object) -> None:
    if not done:
        raise StoreUnfitError(
            f"the store does not {what}: no repository can lie there", next_command="choose another store"
        )

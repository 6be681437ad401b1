"""The repositories that this node uses: opened by what an order says, kept open, one writer of this node at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import blake3
import structlog

from novacron.protocol.backup import RepositoryPlace
from novacron.repository.address import open_store
from novacron.repository.errors import AddressError, IndexDamagedError
from novacron.repository.keys import Secret
from novacron.repository.repository import Repository
from novacron.repository.store import Store

MOST: Final = 16  # that are kept open
log = structlog.get_logger()


@dataclass(slots=True)
class _Kept:
    repository: Repository | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class OpenRepositories:
    """``cache`` is for their opened indexes."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._kept: OrderedDict[RepositoryPlace, _Kept] = OrderedDict()
        self._writing: dict[str, asyncio.Lock] = {}  # by address

    async def repository(self, place: RepositoryPlace) -> Repository:
        """Raises AddressError, RepositoryMissingError, WrongKeyError, DamagedError, StoreError."""
        kept = self._kept.setdefault(place, _Kept())
        self._kept.move_to_end(place)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        async with kept.opening:
            if kept.repository is None:
                kept.repository = await asyncio.to_thread(self._open, place)
            return kept.repository

    @asynccontextmanager
    async def changing(self, place: RepositoryPlace) -> AsyncIterator[Repository]:
        """The repository, for one writer at a time of this node: it knows what all before have stored."""
        async with self._writing.setdefault(place.address, asyncio.Lock()):
            repository = await self.repository(place)
            await asyncio.to_thread(refresh, repository)
            yield repository

    def forget(self, address: str) -> None:
        """What lies there is not what it was."""
        for place in [place for place in self._kept if place.address == address]:
            del self._kept[place]

    def cache_of(self, place: RepositoryPlace) -> Path:
        """Where the opened index of a repository is."""
        return self._cache / blake3.blake3(place.address.encode()).hexdigest()[:32]

    def _open(self, place: RepositoryPlace) -> Repository:
        repository = Repository.open(store_of(place), secret_of(place), self.cache_of(place))
        refresh(repository)
        return repository


def store_of(place: RepositoryPlace) -> Store:
    """Raises AddressError; the folder must be named from the root on, for no other is the same everywhere."""
    if "://" not in place.address and not place.address.startswith("/"):
        raise AddressError(
            f"{place.address} is not the whole path of a folder", next_command="give a path that begins with /"
        )
    return open_store(place.address, place.access)


def secret_of(place: RepositoryPlace) -> Secret:
    """What opens it; raises WrongKeyError."""
    if place.how == "recovery":
        return Secret.recovery(place.secret.decode(errors="replace"))
    return Secret.file(place.secret) if place.how == "file" else Secret(place.how, place.secret)


def refresh(repository: Repository) -> None:
    """Know what others have stored; an index that is damaged is made anew of what the packs say."""
    try:
        repository.refresh()
    except IndexDamagedError as error:
        log.warning("repository_index_rebuilt", cause=error.cause)
        repository.rebuild_index()
        repository.refresh()

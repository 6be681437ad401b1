"""The repository of a node's checkpoints: made when it is first needed, opened once, one change at a time."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.agent.open_repositories import refresh
from novacron.core.ids import CheckpointId
from novacron.repository.address import open_store
from novacron.repository.errors import ChunkUnknownError, RepositoryMissingError, WrongKeyError
from novacron.repository.folder import clear_aside
from novacron.repository.keys import Secret
from novacron.repository.prune import Pruned, prune
from novacron.repository.repository import Repository

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CheckpointPlaces:
    """Where a node keeps its checkpoints, if not in its data folder, and how much of them (0: all)."""

    folder: Path | None = None
    key_file: Path | None = None
    quota_bytes: int = 0


class CheckpointStore:
    """``folder`` holds it, ``key_file`` opens it, ``cache`` is for its opened index."""

    def __init__(self, folder: Path, key_file: Path, cache: Path) -> None:
        self.folder = folder
        self._key_file = key_file
        self._cache = cache
        self._repository: Repository | None = None
        self._opening = asyncio.Lock()
        self._changing = asyncio.Lock()

    async def repository(self) -> Repository:
        """Raises WrongKeyError, DamagedError, StoreError."""
        async with self._opening:
            if self._repository is None:
                self._repository = await asyncio.to_thread(self._open)
            return self._repository

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Repository]:
        """The repository, for one writer at a time: each knows what all before have stored."""
        repository = await self.repository()
        async with self._changing:
            await asyncio.to_thread(refresh, repository)
            yield repository

    async def remove(self, checkpoint_id: CheckpointId) -> Pruned:
        """A checkpoint, and what nothing else needs; harmless when it is not there."""
        async with self.changing() as repository:
            await asyncio.to_thread(repository.delete_manifest, checkpoint_id)
            return await prune_now(repository)

    def _open(self) -> Repository:
        store = open_store(str(self.folder))
        secret = self._secret()
        try:
            repository = Repository.open(store, secret, self._cache)
        except RepositoryMissingError:
            repository = Repository.create(store, secret, self._cache)
        clear_aside(self.folder)
        refresh(repository)
        return repository

    def _secret(self) -> Secret:
        """The key file's content; it is made with the repository, and not made again for one that has lost it."""
        if not self._key_file.exists():
            if any(self.folder.glob("*")):
                raise WrongKeyError(
                    f"the key file {self._key_file} of the checkpoints in {self.folder} is missing",
                    next_command=f"restore {self._key_file}, or move {self.folder} away",
                )
            self._key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._key_file.touch(mode=0o600)
            self._key_file.write_bytes(secrets.token_bytes(KEY_BYTES))
        return Secret.file(self._key_file.read_bytes())


async def prune_now(repository: Repository) -> Pruned:
    """Remove what nothing needs: nobody else writes here, so nobody has to be waited for."""
    try:
        return await asyncio.to_thread(prune, repository, grace_s=0, now=time.time())
    except ChunkUnknownError:
        await asyncio.to_thread(repository.rebuild_index)
        return await asyncio.to_thread(prune, repository, grace_s=0, now=time.time())

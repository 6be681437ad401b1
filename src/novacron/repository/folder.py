"""A store in a folder: files that are written aside, made durable, and then appear under their names."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from novacron.repository.errors import RepositoryFullError, StoreError, StoreUnfitError
from novacron.repository.store import ObjectExistsError, ObjectMissingError, StoredObject, checked

ASIDE: Final = ".aside"  # no name of an object begins with a dot
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


class FolderStore:
    """See ``store.Store``. On one file system, which has hard links: they make a file appear once and whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._aside = root / ASIDE

    def put(self, name: str, data: bytes) -> None:
        """Written aside, synced, linked to its name, and the folder synced."""
        target, aside = self._path(name), self._aside / secrets.token_hex(8)
        with self._failing(name):
            self._make(self._aside)
            self._make(target.parent)
            try:
                with aside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._link(aside, name)
            finally:
                aside.unlink(missing_ok=True)
            _sync(target.parent)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read a file, or a part of it."""
        with self._failing(name):
            try:
                with self._path(name).open("rb") as file:
                    file.seek(offset)
                    return file.read(-1 if length is None else length)
            except FileNotFoundError:
                raise ObjectMissingError(name) from None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Walk the folder of ``prefix``."""
        with self._failing(prefix):
            for folder, _, names in os.walk(self._path(prefix.removesuffix("/"))):
                for name in names:
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                        info = path.stat()
                        yield StoredObject(str(path.relative_to(self._root)), info.st_size, info.st_mtime)

    def delete(self, name: str) -> None:
        """Unlink."""
        path = self._path(name)
        with self._failing(name):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            _sync(path.parent)

    def _link(self, aside: Path, name: str) -> None:
        try:
            os.link(aside, self._root / name)
        except FileExistsError:
            raise ObjectExistsError(name) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StoreUnfitError(
                f"the file system of {self._root} has no hard links: no repository can lie there",
                next_command="choose a folder on another file system",
            ) from error

    def _path(self, name: str) -> Path:
        return self._root / checked(name)

    def _make(self, folder: Path) -> None:
        """A folder, durable in those above it."""
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while folder != self._root:
                folder = folder.parent
                _sync(folder)

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """The system's errors, told as those of a store."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise RepositoryFullError(
                    f"the file system of the repository {self._root} is full", next_command=f"df -h {self._root}"
                ) from error
            raise StoreError(f"{self._root / name}: {error.strerror or error}") from error


def clear_aside(root: Path) -> None:
    """Remove what writers that were killed had begun; call it when nobody writes."""
    if (root / ASIDE).is_dir():
        for path in (root / ASIDE).iterdir():
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

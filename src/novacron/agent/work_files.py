"""Notes of work under way in a node's folder, so that the node's next start can end what was broken off."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Struct)


class WorkFiles(Generic[T]):
    """One note a piece of work, and a folder for what it puts aside."""

    def __init__(self, folder: Path, kind: type[T]) -> None:
        self._folder = folder
        self._kind = kind

    def begin(self, work_id: str, note: T) -> None:
        """Durable when this returns; replaces an earlier note of the same work."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._folder / f"{work_id}.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(note))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._folder / f"{work_id}.json")

    def aside(self, work_id: str) -> Path:
        """A folder of its own, which may not exist yet."""
        return self._folder / work_id

    def end(self, work_id: str) -> None:
        """Forget it, with what it put aside; harmless when there is nothing."""
        shutil.rmtree(self.aside(work_id), ignore_errors=True)
        (self._folder / f"{work_id}.json").unlink(missing_ok=True)

    def left(self) -> Iterator[tuple[str, T]]:
        """What was begun and not ended."""
        for path in sorted(self._folder.glob("*.json")):
            yield path.stem, msgspec.json.decode(path.read_bytes(), type=self._kind)

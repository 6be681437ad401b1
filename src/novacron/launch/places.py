"""Where a process keeps what does not belong into its data folder: sockets, and RAM of guests.

Both follow from the data folder's path, so that a restarted process finds what it left.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from novacron.core.errors import ConflictError

LABEL_LENGTH: Final = 12  # a unix socket's path has at most 107 bytes

LOCK: Final = "lock"


class FolderInUseError(ConflictError):
    """Another process works on this data folder."""

    code = "folder_in_use"


def run_dir(data_dir: Path) -> Path:
    """For sockets and process ids: short, and gone after a boot."""
    if os.geteuid() == 0:
        return Path("/run/novacron") / _label(data_dir)
    return Path(os.environ.get("XDG_RUNTIME_DIR", f"/tmp/novacron-{os.geteuid()}")) / f"novacron-{_label(data_dir)}"  # noqa: S108 - made private below


def ram_dir(data_dir: Path) -> Path:
    """For guests' RAM: on tmpfs."""
    return Path("/dev/shm") / f"novacron-{_label(data_dir)}"  # noqa: S108 - tmpfs is what it is about; made private


def private(path: Path) -> Path:
    """Make a folder that only its owner enters; raises PermissionError when another owns it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    return path


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold a data folder for this process alone; raises FolderInUseError. The kernel lets go when the process ends."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FolderInUseError(
                f"{data_dir} is in use by process {lock.read().strip() or 'unknown'}",
                next_command=f"the same command with --data-dir, or end that process: lsof {data_dir / LOCK}",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _label(data_dir: Path) -> str:
    return hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:LABEL_LENGTH]

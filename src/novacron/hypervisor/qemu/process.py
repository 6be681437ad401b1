"""A process that outlives whoever started it, recognised again by its id and its start time."""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_START_TIME_FIELD: Final = 19  # of /proc/<pid>/stat, counted after the command's closing parenthesis
_TICKS_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """``started`` (clock ticks since boot) tells this process from a later one with the same id."""

    pid: int
    started: int

    @classmethod
    def spawn(cls, arguments: list[str], *, program: str, log: Path, inherit: Sequence[int] = ()) -> "Process":
        """Start in a session of its own, with its output in ``log`` and the descriptors ``inherit``."""
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, fd, 1),
                (os.POSIX_SPAWN_DUP2, fd, 2),
            ]
            # Onto itself: inherited by this process, and by no other that is spawned meanwhile.
            actions += [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in inherit]
            pid = os.posix_spawn(program, arguments, os.environ, file_actions=actions, setsid=True)
        finally:
            os.close(fd)
        return cls(pid, _start_time(pid) or 0)

    @classmethod
    def find(cls, argument: str) -> "Process | None":
        """The one that has this text in its arguments."""
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            if argument.encode() in _read(arguments):
                pid = int(arguments.parent.name)
                return cls(pid, _start_time(pid) or 0)
        return None

    @property
    def alive(self) -> bool:
        """Whether any thread of it runs: until the last has ended, its files are open."""
        if not self.pid:
            return False  # it was never started
        self._reap()
        return _start_time(self.pid) == self.started and not _has_ended(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to it, and to no other process; harmless when it is gone."""
        if self.alive:
            os.kill(self.pid, number)

    async def wait(self) -> None:
        """Return when it has ended; a cancellation leaves it running."""
        if not self.alive:
            return
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            if self.alive:
                await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        self._reap()

    async def kill(self) -> None:
        """End it now and wait until it has ended."""
        self.signal(signal.SIGKILL)
        await self.wait()

    def thread_cpu_s(self, name_part: str) -> float:
        """CPU seconds of its threads whose name contains ``name_part``."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            try:
                if name_part not in (task / "comm").read_text():
                    continue
                fields = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # the thread ended between the listing and the reading
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS_S

    def _reap(self) -> None:
        """Collect its exit status when it was our child: until then it would stay a zombie."""
        with contextlib.suppress(ChildProcessError):  # not ours: its parent collects it
            os.waitpid(self.pid, os.WNOHANG)


def is_mapped(path: Path) -> bool:
    """Whether any process that we may look at has this file in its memory."""
    name = str(path.resolve()).encode()
    return any(name in _read(maps) for maps in Path("/proc").glob("[0-9]*/maps"))


def _read(path: Path) -> bytes:
    """A file of /proc; empty when its process has ended or is another user's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[_START_TIME_FIELD])


def _has_ended(pid: int) -> bool:
    """Also of a zombie, which waits for its parent; /proc shows one while threads of it still run."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(fd)

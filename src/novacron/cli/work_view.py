"""How one thing is shown on which long work is done: a checkpoint, a backup, a repository."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from novacron.cli.errors import WorkFailedError
from novacron.cli.live import Picture
from novacron.cli.texts import span
from novacron.core.units import MIB, format_size
from novacron.protocol.checkpoint import WorkProgress
from novacron.protocol.resources import Problem


class Worked(Protocol):
    """It is in a state; ``problem`` is what the last work on it failed for."""

    @property
    def state(self) -> str:
        """One word."""
        ...

    @property
    def progress(self) -> WorkProgress:
        """Of the work that goes on."""
        ...

    @property
    def problem(self) -> Problem | None:
        """None while all is well."""
        ...


W = TypeVar("W", bound=Worked)


def describe(worked: Worked) -> str:
    """Its state, and how far the work on it is, in one line."""
    progress = worked.progress
    if not progress.phase:
        return worked.state
    parts = [f"{worked.state}: {progress.phase}"]
    if progress.total_bytes:
        parts.append(f"{format_size(progress.done_bytes)} of {format_size(progress.total_bytes)}")
    if progress.rate_bytes_s:
        parts.append(f"{progress.rate_bytes_s / MIB:.0f} MiB/s")
    if progress.eta_s:
        parts.append(f"{span(progress.eta_s * 1000)} left")
    return " · ".join(parts)


def pictures(title: Callable[[W], str]) -> Callable[[str], Callable[[W], Picture]]:
    """For a ``View``: a bar that never moves backwards."""

    def begin(_context_flag: str) -> Callable[[W], Picture]:
        reached = 0.0

        def picture(worked: W) -> Picture:
            nonlocal reached
            progress = worked.progress
            if progress.total_bytes:
                reached = max(reached, min(1.0, progress.done_bytes / progress.total_bytes))
            return Picture(title(worked), reached, describe(worked), "")

        return picture

    return begin


def judge(worked: Worked) -> None:
    """Raises WorkFailedError, unless the last work on it ended well."""
    if (problem := worked.problem) is not None:
        raise WorkFailedError(problem.cause, code=problem.code, next_command=problem.next_command)

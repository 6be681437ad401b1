"""Figures as people read them."""

import time

from novacron.core.units import MIB, format_size
from novacron.protocol.checkpoint import WorkProgress

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


def ago(at: float, now: float | None = None) -> str:
    """How long ago ``at`` (seconds since 1970) was; empty for never."""
    if not at:
        return ""
    passed = max(0.0, (time.time() if now is None else now) - at)
    for unit, length in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S)):
        if passed >= length:
            return f"{passed / length:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def span(duration_ms: float) -> str:
    """A duration with its unit: ``85 ms``, ``4.2 s``, ``3:07 min``."""
    seconds = duration_ms / 1000
    if seconds < 1:
        return f"{duration_ms:.0f} ms"
    if seconds < MINUTE_S:
        return f"{seconds:.3g} s"
    return f"{int(seconds // MINUTE_S)}:{int(seconds % MINUTE_S):02d} min"


def moment(at: float) -> str:
    """Local time of day with its date; empty for never."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def sizes(*pairs: tuple[str, int]) -> str:
    """``zero 12 MiB, delta 3 MiB``: what is nothing is left out."""
    return ", ".join(f"{name} {format_size(size)}" for name, size in pairs if size)


def work_text(state: str, progress: WorkProgress) -> str:
    """A state, and how far the work in it is, in one line."""
    if not progress.phase:
        return state
    parts = [f"{state}: {progress.phase}"]
    if progress.total_bytes:
        parts.append(f"{format_size(progress.done_bytes)} of {format_size(progress.total_bytes)}")
    if progress.rate_bytes_s:
        parts.append(f"{progress.rate_bytes_s / MIB:.0f} MiB/s")
    if progress.eta_s:
        parts.append(f"{span(progress.eta_s * 1000)} left")
    return " · ".join(parts)


def problem_text(code: str, cause: str, next_command: str) -> str:
    """An error at rest."""
    return "\n".join([f"{cause} ({code})", *([f"next: {next_command}"] if next_command else [])])

"""Figures as people read them."""

import time

from novacron.core.units import format_size

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


def problem_text(code: str, cause: str, next_command: str) -> str:
    """An error at rest."""
    return "\n".join([f"{cause} ({code})", *([f"next: {next_command}"] if next_command else [])])

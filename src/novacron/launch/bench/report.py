"""The benchmark's figures as people read them: a table a workload."""

import click

from novacron.cli.output import table
from novacron.cli.texts import span
from novacron.core.units import format_size
from novacron.launch.bench.run import Comparison, Standing

TITLES = ("", "runs", "time", "x", "on the link", "x", "", "downtime", "errors", "node's memory")


def show(comparison: Comparison) -> None:
    """One workload."""
    click.echo()
    click.echo(f"{comparison.workload}: {_peers(comparison)}")
    table(TITLES, [_row(one) for one in comparison.standings])
    for one in comparison.standings:
        if one.note:
            click.echo(f"{one.contender}: {one.note}")


def _peers(comparison: Comparison) -> str:
    if not comparison.fastest_peer:
        return "no stock mode has moved the guest, so there are no ratios"
    return f"time against {comparison.fastest_peer}, bytes against {comparison.leanest_peer}"


def _row(one: Standing) -> list[str]:
    moved = one.outcome == "moved"
    return [
        one.contender,
        str(one.runs),
        span(one.total_ms) if moved else f"{one.outcome} after {span(one.total_ms)}",
        _ratio(one.time_ratio),
        format_size(round(one.link_bytes)) if one.link_bytes else "",
        _ratio(one.bytes_ratio),
        "" if one.share is None else f"{one.share:.1%} of {one.share_of}",
        span(one.downtime_ms) if moved else "",
        str(one.errors) if moved else "",
        format_size(one.node_bytes) if one.node_bytes else "",
    ]


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"

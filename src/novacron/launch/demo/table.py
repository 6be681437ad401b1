"""The figures of the moves, side by side."""

from collections.abc import Callable, Sequence
from typing import Final

from novacron.cli.output import table
from novacron.cli.texts import span
from novacron.core.units import format_size
from novacron.launch.demo.journey import Trip
from novacron.launch.stock.race import StockResult
from novacron.protocol.migration import MigrationSummary

Row = tuple[str, Callable[[MigrationSummary], str]]
ROWS: Final[tuple[Row, ...]] = (
    ("total time", lambda s: span(s.total_ms)),
    ("downtime", lambda s: span(s.downtime_ms)),
    ("rounds", lambda s: str(s.rounds)),
    ("guest bytes", lambda s: format_size(s.guest_bytes)),
    ("on the wire", lambda s: f"{format_size(s.wire_bytes)}, {s.wire_bytes / s.guest_bytes:.1%} of them"),
    ("  of zero pages and blocks", lambda s: format_size(s.split.zero_wire_bytes)),
    ("  of dedup", lambda s: format_size(s.split.dedup_wire_bytes)),
    ("  of delta", lambda s: format_size(s.split.delta_wire_bytes)),
    ("  of compressed", lambda s: format_size(s.split.compressed_wire_bytes)),
    ("guest bytes sent as zero", lambda s: format_size(s.split.zero_bytes)),
    ("  known there already", lambda s: format_size(s.split.unchanged_bytes)),
    ("  dedup", lambda s: format_size(s.split.dedup_bytes)),
    ("  delta", lambda s: format_size(s.split.delta_bytes)),
    ("  compressed", lambda s: format_size(s.split.literal_bytes)),
)
STOCK: Final[tuple[tuple[str, Callable[[StockResult], str]], ...]] = (
    ("total time", lambda r: span(r.figures.total_ms) if r.figures.converged else f"> {span(r.figures.total_ms)}"),
    ("downtime", lambda r: span(r.figures.downtime_ms) if r.figures.converged else "does not converge"),
    ("rounds", lambda r: str(r.figures.rounds)),
    ("on the wire", lambda r: f"{format_size(r.link_bytes)} (as the link counts)"),
)


def print_table(trips: Sequence[Trip], peers: Sequence[StockResult]) -> None:
    """One column a move; a peer shows what can be known of it."""
    titles = ["", *(f"{trip.source} → {trip.target}" for trip in trips), *(peer.name for peer in peers)]
    told = dict(STOCK)
    rows = [
        [name, *(cell(trip.summary) for trip in trips), *(told[name](p) if name in told else "" for p in peers)]
        for name, cell in ROWS
    ]
    table(titles, rows)

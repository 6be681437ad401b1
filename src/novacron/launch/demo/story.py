"""The demonstration as it is told while it goes on: sentences, and a live line for each move."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from novacron.cli.live import live_line
from novacron.cli.migration_view import pictures
from novacron.cli.progress import describe
from novacron.cli.texts import span
from novacron.core.units import format_rate
from novacron.launch.demo.journey import Trip, Watch
from novacron.launch.demo.site import DemoSite
from novacron.launch.lab.lab import Lab
from novacron.protocol.resources import Migration


class Story:
    """Told on standard output, for people; ``quiet`` for programs, which read the end."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._began = time.monotonic()

    def say(self, sentence: str, pages: Sequence[DemoSite] = ()) -> None:
        """One thing that has happened, and where to look at it."""
        if self.quiet:
            return
        click.echo(f"{time.monotonic() - self._began:6.1f} s  {sentence}")
        for site in pages:
            click.echo(f"          {site.name}: {site.url}/login?token={site.token}")

    def lab(self, lab: Lab) -> None:
        """What the link is like."""
        self.say(f"the link: {format_rate(lab.link.rate_bytes_s)}, {lab.note}")

    @contextmanager
    def trip(self, source: str, target: str) -> Iterator[Watch]:
        """Show a move: a live line on a terminal, a line a phase elsewhere."""
        self.say(f"the guest moves from {source} to {target}, memory and disk, while it works")
        if self.quiet:
            yield lambda _: None
        elif sys.stdout.isatty():
            with live_line(pictures()) as show:
                yield lambda migration: show(migration, "")
        else:
            yield self._by_phases()

    def arrived(self, trip: Trip) -> None:
        """The guest's own verdict."""
        took = f"{span(trip.summary.total_ms)}, of which it stood still {span(trip.summary.downtime_ms)}"
        found = (
            f"{trip.pages} pages and {trip.records} records compared, {trip.errors + trip.lost + trip.doubled} wrong"
        )
        self.say(f"arrived and verified by the guest itself: {found} ({took})")

    def _by_phases(self) -> Watch:
        told: list[str] = []

        def watch(migration: Migration) -> None:
            now = f"{migration.phase}, round {migration.progress.round}"
            if told != [now]:
                told[:] = [now]
                self.say(f"  {describe(migration)}")

        return watch

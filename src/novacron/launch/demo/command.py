"""``novacron demo``."""

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from novacron.cli.measures import DURATION, RATE
from novacron.core.settings import default_data_dir
from novacron.launch.demo.journey import (
    DOWNTIME_MS,
    MEMORY_BYTES,
    POLICY,
    Trip,
    bring_images,
    join,
    plain,
    settle_in,
    travel,
)
from novacron.launch.demo.site import SITES, DemoSite, both_sites
from novacron.launch.demo.story import Story
from novacron.launch.demo.table import print_table
from novacron.launch.guest.build import GuestFiles, build
from novacron.launch.guest.workloads import HEAP, kernel_arguments
from novacron.launch.lab.lab import Lab, open_lab
from novacron.launch.lab.link import Link
from novacron.launch.serving import until_signal
from novacron.launch.stock.contender import MULTIFD_ZSTD, PLAIN
from novacron.launch.stock.race import Entry, StockResult, race

GIVE_UP_FACTOR: Final = 5  # how many times as long as NovaCron a peer may take
PEERS: Final = (PLAIN, MULTIFD_ZSTD)


@click.command("demo")
@click.option("--link", type=RATE, default="200Mbit/s", show_default=True, help="Rate of the link between the sites.")
@click.option("--delay", type=DURATION, default="20ms", show_default=True, help="Of the link, one way.")
@click.option("--jitter", type=DURATION, default="0ms", show_default=True, help="Of the delay.")
@click.option("--loss", type=click.FloatRange(0, 50), default=0.0, show_default=True, help="Packets lost, in percent.")
@click.option("--seed", type=click.IntRange(1), default=7, show_default=True, help="Of the workload and of the loss.")
@click.option("--compare", is_flag=True, help="Let stock QEMU move the same guest over the same link, too.")
@click.option("--keep", is_flag=True, help="Leave all running until Ctrl-C.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(
    *, link: int, delay: int, jitter: int, loss: float, seed: int, compare: bool, keep: bool, output: str
) -> None:
    """Move a running guest between two clusters, and see that it arrives whole."""
    lab = Link(rate_bytes_s=link, delay_ms=delay, jitter_ms=jitter, loss=loss / 100, seed=seed)
    asyncio.run(_demo(lab, seed, Story(quiet=output != "table"), compare=compare, keep=keep))


async def _demo(link: Link, seed: int, story: Story, *, compare: bool, keep: bool) -> None:
    story.say("building the demo guest (once)")
    guest = await asyncio.to_thread(build, default_data_dir("guest"))
    directory = Path(tempfile.mkdtemp(prefix="novacron-demo-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        lab = await stack.enter_async_context(open_lab(link, SITES))
        story.lab(lab)
        a, b = await stack.enter_async_context(both_sites(lab, directory, tell=story.say))
        append = kernel_arguments(HEAP, seed)
        trips = await _journey(a, b, guest, append, story)
        peers: tuple[StockResult, ...] = ()
        if compare:
            give_up_s = GIVE_UP_FACTOR * trips[0].summary.total_ms / 1000
            entry = Entry(guest, MEMORY_BYTES, append, DOWNTIME_MS, give_up_s)
            peers = await _compare(lab, a, entry, story)
        _tell(story, link, lab, trips, peers)
        if keep:
            story.say("everything goes on running; Ctrl-C ends it", pages=(a, b))
            await until_signal()


async def _journey(a: DemoSite, b: DemoSite, guest: GuestFiles, append: str, story: Story) -> tuple[Trip, Trip]:
    story.say("two clusters serve, each a controller and a node of its own", pages=(a, b))
    await join(a, b)
    story.say("site-b has joined by invitation of site-a; a guest is made at site-a and begins to work")
    await bring_images(a, guest)
    await settle_in(a, append)
    with story.trip(a.name, b.name) as watch:
        there = await travel(a, b, POLICY, watch, tell=story.say)
    story.arrived(there)
    with story.trip(b.name, a.name) as watch:
        back = await travel(b, a, POLICY, watch, tell=story.say)
    story.arrived(back)
    return there, back


async def _compare(lab: Lab, home: DemoSite, entry: Entry, story: Story) -> tuple[StockResult, ...]:
    """Our own guest stands still meanwhile: the peers have the machine for themselves."""
    async with home.paused_guests():
        results = []
        for contender in PEERS:
            story.say(f"now {contender.name}, with the same guest over the same link")
            results.append(await race(lab, SITES, contender, entry))
    return tuple(results)


def _tell(story: Story, link: Link, lab: Lab, trips: tuple[Trip, Trip], peers: tuple[StockResult, ...]) -> None:
    if story.quiet:
        document: dict[str, Any] = {
            "link": msgspec.to_builtins(link),
            "lab": lab.note,
            "there": plain(trips[0]),
            "back": plain(trips[1]),
            "stock": msgspec.to_builtins(peers),
            "verified": True,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    print_table(trips, peers)

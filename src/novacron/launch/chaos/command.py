"""``novacron bench chaos``."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import click
import msgspec

from novacron.cli.measures import DURATION, RATE
from novacron.core.settings import default_data_dir
from novacron.launch.chaos.campaign import carry_out
from novacron.launch.chaos.draw import draw
from novacron.launch.chaos.errors import ViolatedError
from novacron.launch.chaos.report import Report, describe, print_report, report
from novacron.launch.guest.build import build
from novacron.launch.lab.link import Link


@click.command("chaos")
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Migrations, there and back.")
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of all that is drawn.")
@click.option("--first", type=click.IntRange(1), default=1, show_default=True, help="Number of the first run.")
@click.option("--link", type=RATE, default="200Mbit/s", show_default=True, help="Rate of the link.")
@click.option("--delay", type=DURATION, default="20ms", show_default=True, help="Of the link, one way.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or programs.")
def command(*, runs: int, seed: int, first: int, link: int, delay: int, output: str) -> None:
    """Kill, stop and cut at random moments of migrations, and see that nothing is lost or doubled.

    Each run is told on stderr. What is drawn for a run follows from the seed and its number alone.
    """
    told = asyncio.run(_chaos(Link(rate_bytes_s=link, delay_ms=delay, seed=seed), runs, first))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        print_report(told)
    if told.violations:
        number = told.violations[0].number
        raise ViolatedError(
            f"{len(told.violations)} of {runs} runs ended wrong; their logs are in {told.folder}",
            next_command=f"novacron bench chaos --seed {seed} --first {number} --runs 1",
        )


async def _chaos(link: Link, runs: int, first: int) -> Report:
    guest = await asyncio.to_thread(build, default_data_dir("guest"))
    folder = Path(tempfile.mkdtemp(prefix="novacron-chaos-"))
    plan = [draw(link.seed, number) for number in range(first, first + runs)]
    try:
        done = await carry_out(plan, link, guest, folder, lambda run: click.echo(describe(run), err=True))
    finally:
        if not any(folder.glob("run-*")):
            shutil.rmtree(folder)
    return report(done, link, str(folder))

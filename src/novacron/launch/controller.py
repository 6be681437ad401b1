"""``novacron controller``: the controller of one cluster, with its REST API and its page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click

from novacron.api.app import create_app
from novacron.api.serving import serving
from novacron.cli.contexts import write_context
from novacron.control import saved_state
from novacron.control.controller import Controller
from novacron.core.clock import SystemClock
from novacron.core.settings import ControllerSettings, default_data_dir, load
from novacron.launch import places
from novacron.launch.serving import address_of, bind, host_label, own_address, ready_option, tell_ready, until_signal
from novacron.web.pages import routes


@asynccontextmanager
async def serving_controller(settings: ControllerSettings) -> AsyncIterator[tuple[Controller, str]]:
    """A controller that serves nodes, peers and people; with it the URL of its API."""
    listener, api = bind(settings.listen, "the controller"), bind(settings.api, "the API")
    url = f"http://{address_of(api)}"
    data_dir = data_dir_of(settings)
    running = Controller.running(
        data_dir=data_dir,
        name=settings.cluster,
        default_name=host_label(),
        listener=listener,
        advertise=settings.advertise or own_address(listener, ""),
        clock=SystemClock(),
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(places.held(data_dir))
        controller = await stack.enter_async_context(running)
        write_context(controller.cluster.name, url, controller.admin_token)
        await stack.enter_async_context(serving(create_app(controller, pages=routes()), api))
        yield controller, url


def data_dir_of(settings: ControllerSettings) -> Path:
    """Where the controller keeps its state."""
    return Path(settings.data_dir) if settings.data_dir else default_data_dir("controller")


@click.group(invoke_without_command=True)
@click.option("--data-dir", help="Folder of the controller's state.")
@click.option("--cluster", help="Name of the cluster, given at the first start.")
@click.option("--listen", help="HOST:PORT for nodes and peers.")
@click.option("--advertise", help="HOST:PORT at which nodes and peers reach it, if not as bound.")
@click.option("--api", help="HOST:PORT of the REST API and the page.")
@ready_option
@click.pass_context
def command(context: click.Context, /, ready_fd: int | None, **flags: str | None) -> None:
    """Run the controller of a cluster."""
    settings = load(flags={f"controller.{name}": value for name, value in flags.items()}).settings.controller
    context.obj = settings
    if context.invoked_subcommand is None:
        asyncio.run(_run(settings, ready_fd))


async def _run(settings: ControllerSettings, ready_fd: int | None) -> None:
    async with serving_controller(settings) as (controller, url):
        cluster = controller.cluster
        click.echo(f"cluster {cluster.name}: page and API at {url}, nodes and peers at {cluster.address}")
        tell_ready(ready_fd, {"api": url, "address": cluster.address})
        await until_signal()


@command.command("restore")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def restore(settings: ControllerSettings, archive: Path) -> None:
    """Fill an empty data folder from what `novacron controller save` has written."""
    data_dir = data_dir_of(settings)
    asyncio.run(saved_state.restore(archive, data_dir))
    click.echo(f"restored into {data_dir}: start it with `novacron controller --data-dir {data_dir}`")

"""``novacron up``: controller and node on this machine, in one process."""

import asyncio
from pathlib import Path

import click
import msgspec

from novacron.core.settings import Settings, load
from novacron.launch.controller import serving_controller
from novacron.launch.node import serving_node
from novacron.launch.serving import ready_option, tell_ready, until_signal

INVITATION_LIFE_S = 60
CONTROLLER, NODE = "controller", "node"  # folders within --data-dir


@click.command()
@click.option("--data-dir", help="Folder of everything that this machine's cluster keeps.")
@click.option("--cluster", help="Name of the cluster, given at the first start.")
@click.option("--listen", help="HOST:PORT for nodes and peers.")
@click.option("--advertise", help="HOST:PORT at which nodes and peers reach it, if not as bound.")
@click.option("--api", help="HOST:PORT of the REST API and the page.")
@click.option("--node-listen", help="HOST:PORT for other nodes.")
@click.option("--node-advertise", help="HOST:PORT at which nodes of other sites reach the node, if not as bound.")
@click.option("--node-name", help="Name of the node, given at the first start.")
@ready_option
def command(
    ready_fd: int | None,
    data_dir: str | None,
    node_listen: str | None,
    node_advertise: str | None,
    node_name: str | None,
    **flags: str | None,
) -> None:
    """Run a whole cluster on this machine: controller, node, API and page."""
    given = {f"controller.{name}": value for name, value in flags.items()}
    given |= {"node.listen": node_listen, "node.advertise": node_advertise, "node.name": node_name}
    if data_dir:
        given |= {"controller.data_dir": str(Path(data_dir) / CONTROLLER), "node.data_dir": str(Path(data_dir) / NODE)}
    asyncio.run(_run(load(flags=given).settings, ready_fd))


async def _run(settings: Settings, ready_fd: int | None) -> None:
    async with serving_controller(settings.controller) as (controller, url):
        invitation = await controller.nodes.invite(INVITATION_LIFE_S)
        node = msgspec.structs.replace(settings.node, controller=controller.cluster.address)
        async with serving_node(node, invitation.invitation) as (agent, member):
            await controller.nodes.until_ready(member.node_id)
            cluster = controller.cluster
            click.echo(f"cluster {cluster.name}: page and API at {url}, peers at {cluster.address}")
            click.echo(f"node {member.name} at {agent.address}")
            click.echo("in another terminal: novacron vm list")
            tell_ready(ready_fd, {"api": url, "address": cluster.address, "node": agent.address})
            await until_signal()

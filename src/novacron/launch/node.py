"""``novacron node``: the agent of one hypervisor host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import click

from novacron.agent import membership
from novacron.agent.agent import Agent
from novacron.agent.checkpoint_store import CheckpointPlaces
from novacron.agent.membership import Membership
from novacron.agent.operator import Operator
from novacron.core.allocation import keep_freed_buffers
from novacron.core.clock import Clock, SystemClock
from novacron.core.errors import InvalidInputError
from novacron.core.settings import NodeSettings, default_data_dir, load
from novacron.hypervisor.qemu.driver import QemuDriver
from novacron.launch import places
from novacron.launch.serving import bind, host_label, own_address, ready_option, tell_ready, until_signal
from novacron.wire.credentials import Credentials

FILE_PREFIX = "@"


@asynccontextmanager
async def serving_node(settings: NodeSettings, invitation: str) -> AsyncIterator[tuple[Agent, Membership]]:
    """A node that serves; it joins by ``invitation`` unless it has joined before."""
    keep_freed_buffers()
    clock = SystemClock()
    data_dir = Path(settings.data_dir) if settings.data_dir else default_data_dir("node")
    listener = bind(settings.listen, "the node")
    address = own_address(listener, settings.advertise)
    with places.held(data_dir):
        member = await _member(settings, data_dir, invitation, address, clock)
        credentials = Credentials.load(membership.credentials_dir(data_dir), clock)
        agent = Agent(
            node_id=member.node_id,
            data_dir=data_dir,
            make_driver=partial(
                QemuDriver,
                data_dir=data_dir,
                run_dir=places.private(Path(settings.run_dir) if settings.run_dir else places.run_dir(data_dir)),
                ram_dir=places.private(Path(settings.ram_dir) if settings.ram_dir else places.ram_dir(data_dir)),
            ),
            credentials=credentials,
            clock=clock,
            checkpoints=CheckpointPlaces(
                folder=Path(settings.checkpoint_dir) if settings.checkpoint_dir else None,
                key_file=Path(settings.checkpoint_key) if settings.checkpoint_key else None,
                quota_bytes=settings.checkpoint_quota,
            ),
            operator=Operator(
                probes_dir=Path(settings.probes_dir) if settings.probes_dir else None,
                hooks_dir=Path(settings.hooks_dir) if settings.hooks_dir else None,
                hook_timeout_s=settings.hook_timeout_ms / 1000,
                node=member.name,
                cluster=member.cluster_name,
            ),
            migration_ports=settings.migration_ports,
        )
        await agent.start(listener, settings.advertise)
        attending = asyncio.create_task(membership.attend(member, credentials, data_dir, address, clock))
        try:
            yield agent, member
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
            await agent.stop()


async def _member(settings: NodeSettings, data_dir: Path, invitation: str, address: str, clock: Clock) -> Membership:
    """As it was when the node last ran, or by joining now."""
    member = membership.joined(data_dir)
    if member is not None:
        return membership.moved(data_dir, member, settings.controller or member.controller)
    if not invitation:
        raise InvalidInputError(
            "this node has not joined a cluster: give it an invitation",
            next_command="novacron node invite (at the controller), then novacron node --invitation TEXT",
        )
    return await membership.join(data_dir, invitation, name=settings.name or host_label(), address=address, clock=clock)


@click.command()
@click.option("--data-dir", help="Folder of the node's state and of its VMs' disks.")
@click.option("--ram-dir", help="Folder on tmpfs for guests' RAM.")
@click.option("--run-dir", help="Folder for sockets.")
@click.option("--listen", help="HOST:PORT for the controller and other nodes.")
@click.option("--advertise", help="HOST:PORT at which nodes of other sites reach it, if not as bound.")
@click.option("--probes-dir", help="Folder of programs that look at guests that have arrived.")
@click.option("--hooks-dir", help="Folder of programs that are run when VMs come and go.")
@click.option("--name", help="Name of the node, given when it joins.")
@click.option("--controller", metavar="HOST:PORT", help="Where its controller is now, if it has moved.")
@click.option("--invitation", default="", help="Text of `novacron node invite`, or @FILE; needed once.")
@ready_option
def command(ready_fd: int | None, invitation: str, **flags: str | None) -> None:
    """Run the agent of a hypervisor host. Its VMs outlive it."""
    settings = load(flags={f"node.{name}": value for name, value in flags.items()}).settings.node
    if invitation.startswith(FILE_PREFIX):
        invitation = Path(invitation.removeprefix(FILE_PREFIX)).read_text().strip()
    asyncio.run(_run(settings, invitation, ready_fd))


async def _run(settings: NodeSettings, invitation: str, ready_fd: int | None) -> None:
    async with serving_node(settings, invitation) as (agent, member):
        click.echo(f"node {member.name} of cluster {member.cluster_name} at {agent.address}")
        tell_ready(ready_fd, {"node_id": member.node_id, "address": agent.address})
        await until_signal()

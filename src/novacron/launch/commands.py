"""Every command of ``novacron``, as a table of what to import when."""

from collections.abc import Mapping
from typing import Final

import click

from novacron.cli.commands import COMMANDS as CLIENT, CONTROLLER, NODE
from novacron.cli.lazy import Lazy, LazyGroup, ProcessGroup

PROCESSES: Final[Mapping[str, Lazy]] = {
    "doctor": Lazy("novacron.launch.doctor:command", "Look whether this machine can run NovaCron."),
    "up": Lazy("novacron.launch.up:command", "Run a controller and a node on this machine."),
    "controller": Lazy("novacron.launch.commands:controller", "Run the controller of a cluster; show and save it."),
    "node": Lazy("novacron.launch.commands:node", "Run the agent of a node; list, show, invite, drain nodes."),
    "demo": Lazy(
        "novacron.launch.demo.command:command", "Move a guest between two clusters, and see that it arrives whole."
    ),
    "bench": Lazy("novacron.launch.bench.command:command", "Measure."),
}

controller = ProcessGroup(
    "controller",
    Lazy("novacron.launch.controller:command", "Run the controller (so does no command at all)."),
    CONTROLLER,
    {"restore": "Fill an empty data folder from a saved controller."},
    help="Run the controller of a cluster, or look at a running one.",
)
node = ProcessGroup(
    "node",
    Lazy("novacron.launch.node:command", "Run the agent (so does no command at all)."),
    NODE,
    help="Run the agent of a node, or look at the nodes of a cluster.",
)
root = LazyGroup(
    "novacron",
    {**PROCESSES, **CLIENT},
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Virtual machines on stock QEMU that move between sites while they run.",
)


@root.result_callback()
def done(*_: object, **__: object) -> int:
    """What a command gives is no exit code."""
    return 0


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value:
        from novacron.core.version import VERSION  # noqa: PLC0415 - the package's metadata is read for it alone

        click.echo(f"novacron {VERSION}")
        ctx.exit()


root.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_print_version,
        help="Show the version.",
    )
)

"""What every command has: ``--output``, ``--context``, the settings, and a client of the API when it needs one."""

from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate

import click

from novacron.cli.contexts import Context, find_context
from novacron.cli.kinds import NODES
from novacron.cli.output import Output
from novacron.core.settings import Loaded, load

if TYPE_CHECKING:
    from novacron.cli.client import Client

output_option = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "ndjson", "yaml"]),
    help="How to print: for people, or for programs.",
)
context_option = click.option("--context", metavar="NAME", help="Which cluster; see: novacron context list.")


class Session:
    """One run of a command."""

    def __init__(self, output: str | None = None, context: str | None = None) -> None:
        self.loaded: Loaded = load(flags={"client.output": output, "client.context": context})
        self.settings = self.loaded.settings
        self.output = Output(self.settings.client.output)

    @property
    def context(self) -> Context:
        """The cluster that is spoken with; raises ContextUnknownError, ContextAmbiguousError."""
        return find_context(self.settings.client.context)

    @property
    def context_flag(self) -> str:
        """What commands that are proposed to the user must carry to mean the same cluster."""
        chosen = self.loaded.sources["client.context"] == "flag"
        return f" --context {self.settings.client.context}" if chosen else ""

    @cached_property
    def client(self) -> "Client":
        """Its API."""
        from novacron.cli.client import Client  # noqa: PLC0415 - a help text needs no HTTP

        return Client(self.context)

    def node_names(self) -> dict[str, str]:
        """Names of nodes by id, for tables; programs read ids."""
        if self.output.form != "table":
            return {}
        return {found.value.id: found.value.name for found in self.client.list(NODES)}

    def close(self) -> None:
        """Let go of what was opened."""
        if "client" in self.__dict__:
            self.client.close()


def in_session(function: Callable[Concatenate[Session, ...], None]) -> Callable[..., None]:
    """Give a command the options that all have, and a session for them."""

    @output_option
    @context_option
    @wraps(function)
    def run(output: str | None, context: str | None, **given: Any) -> None:
        session = Session(output, context)
        try:
            function(session, **given)
        finally:
            session.close()

    return run

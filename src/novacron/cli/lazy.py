"""Groups of commands that are imported when they are called: ``novacron --help`` imports none of them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

RUN: Final = "run"


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command: where it stands (``module:attribute``), and what a list of commands says of it."""

    target: str
    help: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


class LazyGroup(click.Group):
    """A group over a table of lazy commands, listed in the table's order."""

    def __init__(self, name: str, lazy: Mapping[str, Lazy], **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command, imported now."""
        found = self.lazy.get(cmd_name)
        return found.load() if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.lazy.items()])


class ProcessGroup(LazyGroup):
    """Commands about a process, and the process itself: ``node --listen …`` is ``node run --listen …``.

    ``own`` are commands of ``run`` (then a group itself), with what a list says of them.
    """

    def __init__(
        self, name: str, run: Lazy, lazy: Mapping[str, Lazy], own: Mapping[str, str] = {}, **attributes: Any
    ) -> None:
        super().__init__(
            name, {RUN: run, **lazy, **{key: Lazy(run.target, text) for key, text in own.items()}}, **attributes
        )
        self._direct = {RUN, *lazy}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options without a command are those of ``run``."""
        own = bool(args) and args[0] in self.lazy and args[0] not in self._direct
        options = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, [RUN, *args] if own or options else args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        found = super().get_command(ctx, cmd_name)
        if cmd_name not in self._direct and isinstance(found, click.Group):
            return found.get_command(ctx, cmd_name)
        return found

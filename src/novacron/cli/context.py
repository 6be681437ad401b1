"""``novacron context``: which clusters this user's commands speak with."""

import click
from msgspec import Struct

from novacron.cli import contexts
from novacron.cli.contexts import Context
from novacron.cli.errors import ContextAmbiguousError, ContextUnknownError
from novacron.cli.kinds import Found
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.core.settings import config_dir


class Shown(Struct, frozen=True):
    """A context as it is shown: without its token."""

    name: str
    url: str
    chosen: bool


COLUMNS: tuple[Column[Shown], ...] = (
    Column("", lambda context: "*" if context.chosen else ""),
    Column("NAME", lambda context: context.name),
    Column("URL", lambda context: context.url),
)


@click.group("context")
def group() -> None:
    """Clusters that this user knows, and the one that is spoken with."""


@group.command("list")
@in_session
def list_contexts(session: Session) -> None:
    """List the clusters that are known here; * marks the one that is spoken with."""
    try:
        chosen = session.context.name
    except (ContextUnknownError, ContextAmbiguousError):
        chosen = ""
    found = [Found(_shown(context, chosen)) for context in contexts.list_contexts()]
    session.output.rows(found, COLUMNS, empty="No cluster is known here: novacron up")


@group.command("use")
@click.argument("name")
@in_session
def use(session: Session, name: str) -> None:
    """Speak with the cluster NAME unless a command says otherwise."""
    context = contexts.choose(name)
    session.output.said(_shown(context, name), f"commands speak with {name} at {context.url}")


@group.command("show")
@click.argument("name", required=False)
@in_session
def show(session: Session, name: str | None) -> None:
    """Show one context (the one that is spoken with, unless named) and the file that it stands in."""
    context = contexts.find_context(name) if name else session.context
    chosen = session.context.name if name is None else ""
    facts = (
        ("name", context.name),
        ("url", context.url),
        ("token", f"ends in …{context.token[-4:]}"),
        ("file", str(config_dir() / contexts.FOLDER / f"{context.name}.toml")),
    )
    session.output.facts(Found(_shown(context, chosen)), facts)


def _shown(context: Context, chosen: str) -> Shown:
    return Shown(context.name, context.url, context.name == chosen)

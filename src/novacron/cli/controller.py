"""``novacron controller``: what is asked of a running controller about itself."""

from pathlib import Path

import click

from novacron.cli.session import Session, in_session
from novacron.core.errors import ConflictError
from novacron.core.units import format_size
from novacron.protocol.resources import Cluster


@click.command("show")
@in_session
def show(session: Session) -> None:
    """Show the cluster that answers."""
    found = session.client.read("/cluster", Cluster)
    cluster = found.value
    facts = (
        ("name", cluster.name),
        ("id", cluster.id),
        ("version", cluster.version),
        ("address", cluster.address),
        ("api", session.context.url),
    )
    session.output.facts(found, facts)


@click.command("save")
@click.argument("file", type=click.Path(path_type=Path))
@in_session
def save(session: Session, file: Path) -> None:
    """Keep the controller's state in FILE: whoever has that file is the cluster."""
    if file.exists():
        raise ConflictError(f"{file} exists: a saved controller is never overwritten", next_command=f"ls -l {file}")
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        with session.output.working("saving the controller's state"):
            size = session.client.download("/controller/save", unfinished)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    session.output.said(
        {"file": str(file), "size_bytes": size},
        f"saved in {file} ({format_size(size)}). It holds the cluster's root key: keep it where keys are kept.",
    )

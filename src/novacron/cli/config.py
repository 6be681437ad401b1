"""``novacron config``."""

import click

from novacron.cli.kinds import Found
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.core.settings import Explained

COLUMNS: tuple[Column[Explained], ...] = (
    Column("SETTING", lambda setting: setting.key),
    Column("VALUE", lambda setting: str(setting.value)),
    Column("COMES FROM", lambda setting: setting.source),
    Column("VARIABLE", lambda setting: setting.variable),
)


@click.group("config")
def group() -> None:
    """Settings: defaults, file, variables, flags."""


@group.command("explain")
@in_session
def explain(session: Session) -> None:
    """List every setting, its value, and where that came from."""
    session.output.rows([Found(setting) for setting in session.loaded.explain()], COLUMNS, empty="")
    for name, meant in session.loaded.unknown_variables.items():
        hint = f"; {meant} is meant, perhaps" if meant else ""
        click.echo(f"warning: the variable {name} is no setting{hint}", err=True)

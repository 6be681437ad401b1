"""How a command says that it failed: cause, code, and the one next command, on stderr."""

from collections.abc import Mapping, Sequence

import click

from novacron.core.errors import NovaCronError

MACHINE_FORMS = frozenset({"json", "ndjson"})


def report(error: NovaCronError, *, machine: bool) -> None:
    """Say it to people, or (``machine``) as a JSON document."""
    if machine:
        import msgspec  # noqa: PLC0415 - only for who asks for it

        document = {
            "code": error.code,
            "cause": error.cause,
            "next_command": error.next_command,
            "exit_code": error.exit_code,
        }
        click.echo(msgspec.json.encode(document).decode(), err=True)
        return
    click.echo(f"error: {error.cause}", err=True)
    click.echo(f"code: {error.code}", err=True)
    if error.next_command:
        click.echo(f"next: {error.next_command}", err=True)


def wants_machine_form(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether the command line asks for JSON, as far as it can be told when it could not be read."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in {"--output", "-o"}:
            return value in MACHINE_FORMS
        if flag.startswith("--output="):
            return flag.partition("=")[2] in MACHINE_FORMS
    return environment.get("NOVACRON_OUTPUT", "") in MACHINE_FORMS

"""``novacron``: the one command."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from novacron.cli.report import report, wants_machine_form
from novacron.core.errors import InternalError, InvalidInputError, NovaCronError
from novacron.launch.commands import root

INTERRUPTED: Final = 130


class UsageError(InvalidInputError):
    """The command line cannot be read."""

    code = "usage"


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Errors are said on stderr."""
    try:
        result = root.main(list(arguments), prog_name="novacron", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _failed(_usage(error), arguments)
    except NovaCronError as error:
        return _failed(error, arguments)
    except Exception as error:  # noqa: BLE001 - the last word on any fault
        return _failed(_told(error), arguments)
    return result if isinstance(result, int) else 0  # a command that ends early gives its exit code


def _failed(error: NovaCronError, arguments: Sequence[str]) -> int:
    report(error, machine=wants_machine_form(arguments, os.environ))
    return error.exit_code


def _usage(error: click.ClickException) -> UsageError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "novacron"
    return UsageError(error.format_message(), next_command=f"{path} --help")


def _told(error: Exception) -> NovaCronError:
    """What a task group carries, or a fault of our own, whose trace is printed."""
    if isinstance(error, ExceptionGroup):
        known, _ = error.split(NovaCronError)
        while known is not None:
            first = known.exceptions[0]
            if isinstance(first, NovaCronError):
                return first
            known = first if isinstance(first, ExceptionGroup) else None
    traceback.print_exception(error)
    return InternalError(f"a fault of NovaCron itself: {type(error).__name__}: {error}", next_command="novacron doctor")

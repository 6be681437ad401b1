"""Contexts: the clusters that this user's commands speak with, one file each (``contexts/NAME.toml``: url, token).

The file holds a token, so only its owner reads it. ``current-context`` names the one that ``context use`` has chosen.
"""

import os
import tomllib
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from novacron.cli.errors import ContextAmbiguousError, ContextUnknownError
from novacron.core.errors import InvalidInputError
from novacron.core.ids import check_name
from novacron.core.settings import config_dir

FOLDER: Final = "contexts"
CURRENT: Final = "current-context"
LIST: Final = "novacron context list"


class Context(Struct, frozen=True):
    """One cluster's API, and the right to use it."""

    name: str
    url: str
    token: str


def write_context(name: str, url: str, token: str, *, directory: Path | None = None) -> Path:
    """Remember a cluster, whole or not at all; where. ``directory`` is the configuration folder."""
    folder = (directory or config_dir()) / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{check_name(name, 'context')}.toml"
    content = f"url = {_quoted(url)}\ntoken = {_quoted(token)}\n"
    _replace(path, content)
    return path


def list_contexts(directory: Path | None = None) -> list[Context]:
    """All of them, by name; raises InvalidInputError for a file that is damaged."""
    folder = (directory or config_dir()) / FOLDER
    return [_read(path) for path in sorted(folder.glob("*.toml"))]


def current_name(directory: Path | None = None) -> str:
    """What ``context use`` has chosen, or an empty text."""
    path = (directory or config_dir()) / CURRENT
    return path.read_text().strip() if path.exists() else ""


def choose(name: str, directory: Path | None = None) -> Context:
    """Make ``name`` the one that is used when none is named; raises ContextUnknownError."""
    context = find_context(name, directory)
    _replace((directory or config_dir()) / CURRENT, f"{name}\n")
    return context


def find_context(name: str = "", directory: Path | None = None) -> Context:
    """The context called ``name``; without a name the chosen one, else the only one.

    Raises ContextUnknownError, ContextAmbiguousError.
    """
    known = {context.name: context for context in list_contexts(directory)}
    wanted = name or current_name(directory)
    if wanted in known:
        return known[wanted]
    if name or not known:
        cause = f"there is no context {name!r}" if name else "no cluster is known here"
        raise ContextUnknownError(cause, next_command=LIST if known else "novacron up")
    if len(known) > 1:
        raise ContextAmbiguousError(
            f"there are several contexts: {', '.join(known)}; say which with --context",
            next_command=f"novacron context use {next(iter(known))}",
        )
    return next(iter(known.values()))


def _read(path: Path) -> Context:
    try:
        content = tomllib.loads(path.read_text())
        return msgspec.convert({"name": path.stem, **content}, Context)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is damaged: {error}", next_command=f"rm {path}, then novacron up") from error


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON string is a TOML string too


def _replace(path: Path, content: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    fresh.replace(path)

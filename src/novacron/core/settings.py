"""Every setting of NovaCron, in one typed place.

A value comes from, the later the stronger: the default, the TOML file, a ``NOVACRON_*`` variable, a flag. The file is
``$NOVACRON_CONFIG``, else ``novacron.toml`` in the user's configuration folder, else ``/etc/novacron/novacron.toml``.
A key of the file that is not known is refused; a variable is not, since platforms set some of their own under our
prefix (Kubernetes does, for a service called ``novacron``): ``unknown_variables`` names them.
"""

import difflib
import os
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from novacron.core.errors import InvalidInputError

PREFIX: Final = "NOVACRON_"
FILE_VARIABLE: Final = "NOVACRON_CONFIG"
DIRECTORY_VARIABLE: Final = "NOVACRON_CONFIG_DIR"
FILE_NAME: Final = "novacron.toml"
SYSTEM_FILE: Final = Path("/etc/novacron") / FILE_NAME
CLIENT: Final = "client"  # its variables carry no section: NOVACRON_CONTEXT
SIMILAR: Final = 0.75  # from which share of equal characters on a name counts as a slip of the pen

Address = Annotated[str, Meta(max_length=262)]  # HOST:PORT, or fd:N for a socket that the parent process has bound

PortRange = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$")]  # FIRST-LAST, or one


class SettingsError(InvalidInputError):
    """A setting that is not known, or a value that it cannot have."""

    code = "settings"


class ControllerSettings(Struct, frozen=True):
    """``novacron controller``, and the controller within ``novacron up``."""

    data_dir: str = ""  # empty: see ``default_data_dir``
    cluster: str = ""  # the cluster's name, taken at the first start
    listen: Address = "127.0.0.1:7440"  # for nodes and peers
    advertise: Address = ""  # where nodes and peers reach it, if not as bound
    api: Address = "127.0.0.1:8080"  # REST API and web page


class NodeSettings(Struct, frozen=True):
    """``novacron node``, and the node within ``novacron up``."""

    data_dir: str = ""  # empty: see ``default_data_dir``
    ram_dir: str = ""  # for guests' RAM; empty: a folder on tmpfs that follows from data_dir
    run_dir: str = ""  # for sockets; empty: a folder that follows from data_dir
    listen: Address = "127.0.0.1:7441"  # for the controller and other nodes
    advertise: Address = ""  # where nodes of other sites reach it, if not as bound
    name: str = ""  # empty: the host's name
    hooks_dir: str = ""  # programs that are run when VMs come and go; empty: none
    hook_timeout_ms: Annotated[int, Meta(ge=100, le=20_000)] = 10_000  # of each of them
    probes_dir: str = ""  # programs that look at guests that have arrived; empty: none
    migration_ports: PortRange = "49152-49215"  # at which VMs that come natively are waited for
    controller: Address = ""  # where its controller is now, if it has moved since the node joined
    checkpoint_dir: str = ""  # the repository of VMs' checkpoints; empty: in data_dir
    checkpoint_key: str = ""  # the file with its key; empty: in data_dir, made when it is first needed
    checkpoint_quota: Annotated[int, Meta(ge=0)] = 0  # bytes that checkpoints may take; 0: what there is room for


class ClientSettings(Struct, frozen=True):
    """Commands that speak with a cluster's API."""

    context: str = ""  # which cluster; empty: the one chosen by ``context use``, or the only one
    output: Literal["table", "json", "ndjson", "yaml"] = "table"


class MigrateSettings(Struct, frozen=True):
    """What ``novacron migrate`` asks for unless its flags say otherwise."""

    strategy: Literal["stream", "cold", "native", "auto"] = "stream"
    when_busy: Literal["wait", "throttle", "stop", "postcopy"] = "wait"  # of a guest that outruns the link
    busy_after_ms: Annotated[int, Meta(ge=0)] = 0  # how long such a guest is waited for; 0: as long as it takes
    busy_then: Literal["throttle", "stop", "postcopy", "fail"] = "throttle"  # what the attempt after that one does
    max_downtime_ms: Annotated[int, Meta(ge=1)] = 300
    verify: Literal["any", "agent"] = "any"  # what a guest that has arrived must show
    verify_within_ms: Annotated[int, Meta(ge=1, le=600_000)] = 10_000
    on_unverified: Literal["rollback", "keep"] = "rollback"  # what happens when it does not, or dies in the window
    verify_window_ms: Annotated[int, Meta(ge=0)] = 30_000  # how long a rollback stays possible
    streams: Annotated[int, Meta(ge=0, le=16)] = 0  # 0: as many as the link needs
    compression_level: Annotated[int, Meta(ge=0, le=19)] = 1  # 0: by what link and content are
    stall_after_ms: Annotated[int, Meta(ge=100)] = 60_000  # how long nothing may move
    retry_for_ms: Annotated[int, Meta(ge=0)] = 3_600_000  # how long one that broke is begun again
    batch_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2  # of a batch, at one link and at one host


class Settings(Struct, frozen=True):
    """All of them, by section."""

    controller: ControllerSettings = field(default_factory=ControllerSettings)
    node: NodeSettings = field(default_factory=NodeSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    migrate: MigrateSettings = field(default_factory=MigrateSettings)


class Explained(Struct, frozen=True):
    """One setting: its value, and where that came from."""

    key: str
    value: Any
    source: str  # default, file PATH, variable NAME or flag
    variable: str


class Loaded(Struct, frozen=True):
    """Settings with the story of each value."""

    settings: Settings
    sources: dict[str, str]
    file: str = ""  # that was read; empty: none
    unknown_variables: dict[str, str] = {}  # by name, with the nearest known one or an empty text

    def explain(self) -> list[Explained]:
        """Every setting, in the order of the sections."""
        return [
            Explained(key, getattr(getattr(self.settings, section), name), self.sources[key], variable_of(key))
            for key, (section, name, _) in KNOWN.items()
        ]


def _known() -> Iterator[tuple[str, tuple[str, str, Any]]]:
    for section in msgspec.structs.fields(Settings):
        types = typing.get_type_hints(section.type, include_extras=True)
        for name, kind in types.items():
            yield f"{section.name}.{name}", (section.name, name, kind)


KNOWN: Final[dict[str, tuple[str, str, Any]]] = dict(_known())  # "controller.api": section, name, type


def variable_of(key: str) -> str:
    """``NOVACRON_CONTROLLER_API`` for ``controller.api``."""
    return PREFIX + key.removeprefix(f"{CLIENT}.").replace(".", "_").upper()


def config_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """The user's configuration folder: settings and contexts."""
    if given := environment.get(DIRECTORY_VARIABLE):
        return Path(given)
    home = Path(environment.get("HOME") or Path.home())
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "novacron"


def default_data_dir(part: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where ``controller`` or ``node`` keeps its state: the system's place for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/novacron") / part
    home = Path(environment.get("HOME") or Path.home())
    return Path(environment.get("XDG_DATA_HOME") or home / ".local/share") / "novacron" / part


def load(
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Loaded:
    """The settings of this process. ``flags`` by key (``controller.api``); None there means not given.

    Raises SettingsError, naming the key, where it stands and, for one that is not known, the nearest that is.
    """
    path = file or _file(environment)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(KNOWN, "default")
    given = [
        *((key, value, f"file {path}") for key, value in _read(path)),
        *((key, environment[name], f"variable {name}") for name, key in _variables().items() if name in environment),
        *((key, value, "flag") for key, value in (flags or {}).items() if value is not None),
    ]
    for key, value, source in given:
        values[key] = _convert(key, value, source)
        sources[key] = source
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, name, _ = KNOWN[key]
        sections.setdefault(section, {})[name] = value
    return Loaded(
        settings=msgspec.convert(sections, Settings),
        sources=sources,
        file=str(path or ""),
        unknown_variables=_unknown_variables(environment),
    )


def _variables() -> dict[str, str]:
    return {variable_of(key): key for key in KNOWN}


def _unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    known = [*_variables(), FILE_VARIABLE, DIRECTORY_VARIABLE]
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    return {name: nearest(name, known) for name in unknown}


def nearest(name: str, known: list[str]) -> str:
    """The one of ``known`` that ``name`` was probably meant to be, or an empty text."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR)), "")


def _file(environment: Mapping[str, str]) -> Path | None:
    """The file to read; one that was named must be there, others may be."""
    if named := environment.get(FILE_VARIABLE):
        return Path(named)
    return next((path for path in (config_dir(environment) / FILE_NAME, SYSTEM_FILE) if path.exists()), None)


def _read(path: Path | None) -> list[tuple[str, Any]]:
    """Keys and values of the file."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            sections = tomllib.load(file)
    except OSError as error:
        raise SettingsError(
            f"the settings in {path} cannot be read: {error.strerror}", next_command=f"unset {FILE_VARIABLE}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", next_command=f"edit {path}") from error
    found: list[tuple[str, Any]] = []
    for section, content in sections.items():
        if not isinstance(content, dict):
            raise _unknown(section, path)
        found += [(f"{section}.{name}", value) for name, value in content.items()]
    for key, _ in found:
        if key not in KNOWN:
            raise _unknown(key, path)
    return found


def _unknown(key: str, path: Path) -> SettingsError:
    meant = nearest(key, list(KNOWN)) or next((known for known in KNOWN if known.endswith(f".{key}")), "")
    hint = f": {meant} is meant, perhaps" if meant else ""
    return SettingsError(f"{path} sets {key}, which is not a setting{hint}", next_command="novacron config explain")


def _convert(key: str, value: Any, source: str) -> Any:
    if key not in KNOWN:
        raise SettingsError(f"{key} is not a setting", next_command="novacron config explain")
    try:
        return msgspec.convert(value, KNOWN[key][2], strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"{key} cannot be {value!r} ({source}): {error}", next_command="novacron config explain"
        ) from error

"""``novacron repo``."""

import base64
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from novacron.cli import watching
from novacron.cli.errors import WorkFailedError
from novacron.cli.follow import follow
from novacron.cli.kinds import REPOSITORIES, Found, at
from novacron.cli.measures import DURATION
from novacron.cli.output import Column
from novacron.cli.repository_view import READY, REPOSITORY, checked_text, lock_text, pruned_text
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text
from novacron.cli.work_view import describe
from novacron.core.errors import InvalidInputError
from novacron.core.units import format_size
from novacron.protocol.repository import RepositoryStats
from novacron.protocol.resources import Repository
from novacron.protocol.rest import CheckRequest, MadeRepository, PruneRequest, RepositoryRequest
from novacron.repository.s3_access import S3Access, read_access

COLUMNS: tuple[Column[Repository], ...] = (
    Column("NAME", lambda one: one.name),
    Column("STATE", describe),
    Column("ADDRESS", lambda one: one.address),
    Column("STORE", lambda one: ("weak" if one.warnings else "strong") if one.made else ""),
    Column("LOCK", lambda one: lock_text(one.lock)),
    Column("CHECKED", lambda one: ago(one.checked.at) if one.checked else ""),
    Column("FAULTS", lambda one: str(one.checked.fault_count) if one.checked else ""),
)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
no_wait_option = click.option("--no-wait", is_flag=True, help="Return once the work has begun.")


@click.group("repo")
def group() -> None:
    """Repositories: where backups are kept, in a folder of a node or in a bucket of S3."""


@group.command("create")
@click.argument("name")
@click.argument("address")
@click.option("--node", default="", help="That makes, checks and prunes it; else the first that is ready.")
@click.option(
    "--chunker",
    type=click.Choice(["fixed-256k", "content-64k"]),
    default="fixed-256k",
    show_default=True,
    help="How content is cut: fixed is faster, content finds more that is equal.",
)
@click.option("--passphrase-file", type=FILE, help="The passphrase that opens it: the file's first line.")
@click.option("--key-file", type=FILE, help="A file that opens it, of at least 32 bytes.")
@click.option("--recovery-key-file", type=FILE, help="With --existing: its recovery key.")
@click.option("--no-encryption", is_flag=True, help="Whoever has the repository can read it.")
@click.option("--access-file", type=FILE, help="How S3 is reached (TOML); else by the environment of the nodes.")
@click.option("--existing", is_flag=True, help="Use the repository that is there.")
@no_wait_option
@in_session
def create(
    session: Session,
    name: str,
    address: str,
    *,
    node: str,
    chunker: str,
    passphrase_file: Path | None,
    key_file: Path | None,
    recovery_key_file: Path | None,
    no_encryption: bool,
    access_file: Path | None,
    existing: bool,
    no_wait: bool,
) -> None:
    """Make a repository at ADDRESS: the whole path of a folder, or s3://BUCKET/PREFIX.

    It is encrypted. Unless a passphrase or a key file is given, the controller makes a key. Its recovery key is shown
    once, now: write it down, and keep it elsewhere. Without any of these nobody can read what is stored.
    """
    lock, secret = _lock(passphrase_file, key_file, recovery_key_file, no_encryption=no_encryption)
    access = _access(access_file)
    text = base64.b64encode(secret).decode()
    request = RepositoryRequest(name, address, node, chunker, lock, text, access, existing)
    begun = session.client.post(REPOSITORIES.path, MadeRepository, request)
    made: Repository = begun.value
    if not no_wait:
        with session.output.working(f"making repository {name}"):
            made = _until_made(session, begun)
    shown = msgspec.convert({**msgspec.to_builtins(made), "recovery_key": begun.value.recovery_key}, MadeRepository)
    session.output.said(Found(shown).plain(), "\n".join(_told(shown, session.context_flag)))


@group.command("list")
@in_session
def list_repositories(session: Session) -> None:
    """List the repositories of the cluster."""
    session.output.rows(
        session.client.list(REPOSITORIES), COLUMNS, empty="There are no repositories: novacron repo create NAME ADDRESS"
    )


@group.command("show")
@click.argument("repository")
@in_session
def show(session: Session, repository: str) -> None:
    """Show one repository: what its store can do, and what the last check and prune have found."""
    found = session.client.get(REPOSITORIES, repository)
    value, problem = found.value, found.value.problem
    names = session.node_names()
    shown = [
        ("name", value.name),
        ("id", value.id),
        ("address", value.address),
        ("node", names.get(value.node_id, value.node_id)),
        ("state", describe(value)),
        ("job", value.job_id),
        ("lock", lock_text(value.lock)),
    ]
    if (made := value.made) is not None:
        shown += [
            ("recovery key", "there is one" if made.has_recovery else "there is none"),
            ("chunker", made.chunker),
            ("repository id", made.repository_id),
            ("store", "\n".join(value.warnings) or "strong: it lets several write, and reads parts"),
            ("probed", moment(made.traits.probed_at)),
        ]
    if value.checked is not None:
        shown.append(("last check", "\n".join(checked_text(value.checked))))
    if value.pruned is not None:
        shown.append(("last prune", pruned_text(value.pruned)))
    if problem is not None:
        shown.append(("problem", problem_text(problem.code, problem.cause, problem.next_command)))
    session.output.facts(found, shown)


@group.command("stats")
@click.argument("repository")
@in_session
def stats(session: Session, repository: str) -> None:
    """Show what a repository takes, counted now."""
    found = session.client.read(at(REPOSITORIES, repository, "stats"), RepositoryStats)
    value = found.value
    facts = (
        ("backups", str(value.manifests)),
        ("oldest", moment(value.oldest_at)),
        ("newest", moment(value.newest_at)),
        ("content", f"{format_size(value.pack_bytes)} in {value.packs} packs"),
        ("going", f"{value.going_packs} packs" if value.going_packs else ""),
        ("index", format_size(value.index_bytes)),
        ("manifests", format_size(value.manifest_bytes)),
    )
    session.output.facts(found, facts)


@group.command("check")
@click.argument("repository")
@click.option("--read", is_flag=True, help="Read and hash the content of every chunk, too.")
@no_wait_option
@in_session
def check(session: Session, repository: str, *, read: bool, no_wait: bool) -> None:
    """Look whether all that backups need is there. Exits with 8 when something is not as it was stored."""
    begun = session.client.post(at(REPOSITORIES, repository, "check"), Repository, CheckRequest(read))
    _tell_begun(session, begun, f"repository {repository} is being checked", wait=not no_wait)


@group.command("prune")
@click.argument("repository")
@click.option(
    "--grace",
    type=DURATION,
    default="1d",
    show_default=True,
    help="What is without use now goes no earlier: longer than the longest backup.",
)
@no_wait_option
@in_session
def prune(session: Session, repository: str, *, grace: int, no_wait: bool) -> None:
    """Remove what no backup needs, beside backups that run. What is marked now goes with a prune after the grace."""
    begun = session.client.post(at(REPOSITORIES, repository, "prune"), Repository, PruneRequest(grace))
    _tell_begun(session, begun, f"repository {repository} is being pruned", wait=not no_wait)


@group.command("watch")
@click.argument("repository")
@in_session
def watch(session: Session, repository: str) -> None:
    """Follow a check or a prune to its end. Ctrl-C leaves it running."""
    follow(session, REPOSITORY, repository)


@group.command("cancel")
@click.argument("repository")
@in_session
def cancel(session: Session, repository: str) -> None:
    """Give up the work on a repository that is under way."""
    found = session.client.post(at(REPOSITORIES, repository, "cancel"), Repository)
    session.output.said(found.plain(), f"the work on repository {repository} is being given up")


@group.command("delete")
@click.argument("repository")
@in_session
def delete(session: Session, repository: str) -> None:
    """Forget a repository and what opens it. What lies in its store stays there."""
    found = session.client.get(REPOSITORIES, repository)
    session.client.remove(at(REPOSITORIES, found.value.id))
    address = found.value.address
    session.output.said(found.plain(), f"repository {found.value.name} is forgotten; {address} is as it was")


def _lock(
    passphrase: Path | None, key: Path | None, recovery: Path | None, *, no_encryption: bool
) -> tuple[str, bytes]:
    """Which kind, and the secret."""
    given = [("passphrase", passphrase), ("file", key), ("recovery", recovery), ("open", no_encryption or None)]
    chosen = [(lock, file) for lock, file in given if file is not None]
    if len(chosen) > 1:
        raise InvalidInputError("choose one of --passphrase-file, --key-file, --recovery-key-file, --no-encryption")
    lock, file = chosen[0] if chosen else ("made", None)
    if not isinstance(file, Path):
        return lock, b""
    content = file.read_bytes()
    return lock, content if lock == "file" else content.splitlines()[0] if content else b""


def _access(file: Path | None) -> S3Access | None:
    return None if file is None else read_access(file, {})


def _until_made(session: Session, begun: Found[MadeRepository]) -> Repository:
    """Raises WorkFailedError."""
    found = Found[Repository](begun.value, begun.version)
    job_id, name = begun.value.job_id, begun.value.name
    seen = watching.until(session.client, REPOSITORIES, found, job_id, lambda one: one.state == READY)
    if seen.value is None:
        raise WorkFailedError(f"repository {name} was not made", code="not_found", next_command="novacron repo list")
    return seen.value


def _told(repository: MadeRepository, context_flag: str) -> Iterator[str]:
    name = repository.name
    if repository.state == READY:
        yield f"repository {name} is made"
    else:
        yield f"repository {name} is being made; watch it: novacron repo watch {name}{context_flag}"
    yield from (f"warning: {warning}" for warning in repository.warnings)
    if repository.recovery_key:
        yield f"recovery key, shown this once: {repository.recovery_key}"


def _tell_begun(session: Session, begun: Found[Repository], sentence: str, *, wait: bool) -> None:
    if wait:
        follow(session, REPOSITORY, begun.value.id)
        return
    watch_it = f"novacron repo watch {begun.value.name}{session.context_flag}"
    session.output.said(begun.plain(), f"{sentence}; watch it: {watch_it}")

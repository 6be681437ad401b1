"""Repositories of this cluster: what people may ask of them. Nodes have the bytes; the controller has the keys."""

import base64
import binascii
import re
import secrets
from typing import Final

import msgspec
from msgspec import Struct

from novacron.control.errors import NodeUnreachableError, RepositoryBusyError
from novacron.control.kinds import BACKUPS, NODES, REPOSITORIES
from novacron.control.nodes import Nodes
from novacron.control.scheduler import READY as NODE_READY
from novacron.control.secrets import Secrets
from novacron.core.clock import Clock
from novacron.core.errors import ConflictError, InvalidInputError
from novacron.core.ids import NodeId, RepositoryId, check_name, new_id
from novacron.database.database import Database, Transaction
from novacron.protocol.backup import RepositoryPlace
from novacron.protocol.repository import RepositoryStats
from novacron.protocol.resources import Repository
from novacron.protocol.rest import CheckRequest, PruneRequest, RepositoryRequest
from novacron.repository.address import check_address
from novacron.repository.keys import ID_BYTES, Secret, new_recovery_key
from novacron.repository.sealing import KEY_BYTES
from novacron.workflow import journal
from novacron.workflow.definition import Json
from novacron.workflow.runner import WorkflowRunner

CREATING, READY, CHECKING, PRUNING = "creating", "ready", "checking", "pruning"  # states of a repository
_FOLDER: Final = re.compile(r"(/(?!\.{1,2}(/|$))[^/\0]+)+")  # from the root on, with one name only
HELP: Final = "novacron repo create --help"


class KeptPlace(Struct, frozen=True):
    """What is kept secret of a repository; ``recovery`` only until it is made."""

    place: RepositoryPlace
    recovery: str = ""


class Repositories:
    """Each work is a durable job of the repository's node; its record says how far it is."""

    def __init__(self, database: Database, nodes: Nodes, kept: Secrets, clock: Clock) -> None:
        self._database = database
        self._nodes = nodes
        self._secrets = kept
        self._clock = clock
        self.runner: WorkflowRunner  # set once, by whoever puts the controller together

    async def create(self, request: RepositoryRequest) -> tuple[Repository, str]:
        """The record, whose job makes it, and its recovery key, which nobody can be told again.

        The key is empty of one that was there already, or is not encrypted. Raises InvalidInputError, WrongKeyError,
        AddressError, NameTakenError, ConflictError, NodeUnreachableError.
        """
        check_name(request.name, "repository")
        place = _place(request)
        with_recovery = not request.existing and place.how != "open"
        recovery = new_recovery_key() if with_recovery else ""
        repository_id, job_id, now = RepositoryId(new_id("repository")), new_id("job"), self._clock.now()

        def put(tx: Transaction) -> Repository:
            for other in REPOSITORIES.every(tx):
                if other.address == place.address:
                    raise ConflictError(
                        f"repository {other.name} has the address {place.address}",
                        next_command=f"novacron repo show {other.name}",
                    )
            node_id = _node(tx, request.node)
            repository = Repository(
                repository_id, request.name, place.address, node_id, request.lock, CREATING, job_id, now
            )
            REPOSITORIES.put(tx, repository)
            self._secrets.put(tx, repository_id, msgspec.msgpack.encode(KeptPlace(place, recovery)))
            body: Json = {"repository_id": repository_id, "node_id": node_id, "chunker": request.chunker}
            body |= {"identity": secrets.token_hex(ID_BYTES), "existing": request.existing}
            journal.submit(tx, job_id, "repository.create", _path(repository_id), body)
            return repository

        made = await self._database.write(put)
        self.runner.wake()
        return made, recovery

    async def check(self, reference: str, request: CheckRequest) -> Repository:
        """Raises RepositoryBusyError."""
        return await self._begin(reference, CHECKING, {"read": request.read})

    async def prune(self, reference: str, request: PruneRequest) -> Repository:
        """Raises RepositoryBusyError."""
        return await self._begin(reference, PRUNING, {"grace_s": request.grace_ms / 1000})

    async def cancel(self, reference: str) -> None:
        """Give up what is under way; raises ConflictError when nothing is."""

        def cancel(tx: Transaction) -> None:
            known = REPOSITORIES.get(tx, reference).value
            if known.state == READY:
                raise ConflictError(
                    f"no work on repository {known.name} is under way", next_command=f"novacron repo show {known.name}"
                )
            journal.request_cancel(tx, known.job_id)

        await self._database.write(cancel)
        self.runner.wake()

    async def stats(self, reference: str) -> RepositoryStats:
        """What it takes, as its node counts it now; raises NodeUnreachableError, RemoteError."""
        known, kept = await self._database.read(lambda tx: self._kept(tx, reference))
        return await self._nodes.call(known.node_id, "repository.stats", kept.place, RepositoryStats)

    async def delete(self, reference: str) -> None:
        """Forget it, and its key; what lies in its store is left alone.

        Raises RepositoryBusyError, and ConflictError while backups are in it.
        """

        def delete(tx: Transaction) -> None:
            known = REPOSITORIES.get(tx, reference).value
            _check_ready(known)
            if any(backup.repository_id == known.id for backup in BACKUPS.every(tx)):
                raise ConflictError(
                    f"backups are in repository {known.name}", next_command=f"novacron backup list --repo {known.name}"
                )
            REPOSITORIES.delete(tx, known.id)
            self._secrets.forget(tx, known.id)

        await self._database.write(delete)

    def _kept(self, tx: Transaction, reference: str) -> tuple[Repository, KeptPlace]:
        known = REPOSITORIES.get(tx, reference).value
        return known, kept_place(self._secrets, tx, known.id)

    async def _begin(self, reference: str, state: str, more: Json) -> Repository:
        job_id, now = new_id("job"), self._clock.now()

        def put(tx: Transaction) -> Repository:
            known = REPOSITORIES.get(tx, reference).value
            _check_ready(known)
            begun = msgspec.structs.replace(known, state=state, job_id=job_id, begun_at=now, problem=None)
            REPOSITORIES.put(tx, begun)
            body = {"repository_id": known.id, "node_id": known.node_id, **more}
            workflow = {CHECKING: "repository.check", PRUNING: "repository.prune"}[state]
            journal.submit(tx, job_id, workflow, _path(known.id), body)
            return begun

        begun = await self._database.write(put)
        self.runner.wake()
        return begun


def kept_place(kept: Secrets, tx: Transaction, repository_id: str) -> KeptPlace:
    """Where a repository is, and what opens it; raises SecretLostError."""
    return msgspec.msgpack.decode(kept.get(tx, repository_id), type=KeptPlace)


def _place(request: RepositoryRequest) -> RepositoryPlace:
    """Raises InvalidInputError, WrongKeyError, AddressError for what can never work."""
    how, secret = request.lock, _decoded(request.secret)
    if bool(secret) != (how in {"passphrase", "file", "recovery"}):
        raise InvalidInputError(f"with the lock {how} a secret is {'missing' if not secret else 'too much'}")
    if how == "made":
        if request.existing:
            raise InvalidInputError("say what opens the repository that is there", next_command=HELP)
        how, secret = "file", secrets.token_bytes(KEY_BYTES)
    elif how == "file":
        Secret.file(secret)
    elif how == "recovery":
        if not request.existing:
            raise InvalidInputError("a recovery key opens a repository that is there", next_command=HELP)
        Secret.recovery(secret.decode(errors="replace"))
    address = request.address.rstrip("/") or "/"
    if "://" not in address and _FOLDER.fullmatch(address) is None:
        raise InvalidInputError(
            f"{request.address!r} is not the whole path of a folder, nor s3://BUCKET/PREFIX", next_command=HELP
        )
    check_address(address)
    return RepositoryPlace(address=address, how=how, secret=secret, access=request.access)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidInputError("the secret is not base64") from None


def _node(tx: Transaction, wanted: str) -> NodeId:
    """The one that is wanted, else the first by name that is ready; raises NodeUnreachableError."""
    if wanted:
        return NODES.get(tx, wanted).value.id
    ready = sorted((node.name, node.id) for node in NODES.every(tx) if node.state == NODE_READY and not node.drain)
    if not ready:
        raise NodeUnreachableError("no node is ready to make a repository", next_command="novacron node list")
    return ready[0][1]


def _check_ready(repository: Repository) -> None:
    if repository.state != READY:
        raise RepositoryBusyError(
            f"repository {repository.name} is {repository.state}",
            next_command=f"novacron repo watch {repository.name}",
        )


def _path(repository_id: RepositoryId) -> str:
    return f"/api/v1/repositories/{repository_id}"

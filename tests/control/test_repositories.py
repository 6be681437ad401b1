"""Repositories from their request to the folder, on a node in this process: made, checked, pruned, never told open."""

import base64
from contextlib import asynccontextmanager

import pytest

from novacron.control.errors import RepositoryBusyError, SecretLostError
from novacron.control.kinds import REPOSITORIES
from novacron.control.repositories import kept_place
from novacron.control.secrets import KEY_FILE, Secrets
from novacron.core.errors import ConflictError, InvalidInputError, NovaCronError
from novacron.core.ids import RepositoryId
from novacron.protocol.checkpoint import WorkProgress
from novacron.protocol.resources import Repository
from novacron.protocol.rest import CheckRequest, PruneRequest, RepositoryRequest
from novacron.repository.address import open_store
from novacron.repository.errors import WrongKeyError
from novacron.repository.keys import Secret
from novacron.repository.manifest import Manifest, Stream
from novacron.repository.repository import Repository as Stored
from novacron.repository.s3_access import S3Access
from novacron.repository.writer import Writer
from support.clusters import cluster, in_memory
from support.s3_servers import BUCKET

CHUNK = 256 * 1024


def text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


@asynccontextmanager
async def site(directory):
    async with cluster("site-a", directory, in_memory()) as a:
        yield a


async def made(a, address, **request) -> tuple[Repository, str]:
    begun, recovery = await a.controller.repositories.create(RepositoryRequest("backups", str(address), **request))
    job = await a.job(begun.job_id)
    assert job.state == "done", job
    return (await a.database.read(lambda tx: REPOSITORIES.get(tx, begun.id))).value, recovery


async def ended(a, begun):
    """The job, and the repository after it."""
    job = await a.job(begun.job_id)
    return job, (await a.database.read(lambda tx: REPOSITORIES.get(tx, begun.id))).value


async def stored(directory, address, secret, name: str, fill: int) -> None:
    """One chunk, by somebody else."""
    repository = Stored.open(open_store(str(address)), secret, directory / f"cache-{name}")
    repository.refresh()
    writer = Writer(repository)

    async def pieces():
        yield 0, bytes([fill]) * CHUNK

    stream = await writer.store(Stream.empty("disk", CHUNK), pieces())
    writer.commit(name, Manifest(1.0, repository.chunker.name, (stream,), {}))


async def test_a_repository_is_made_and_its_recovery_key_opens_it(short_dir):
    async with site(short_dir) as a:
        repository, recovery = await made(a, short_dir / "backups", chunker="content-64k")
        assert (repository.state, repository.lock, repository.warnings) == ("ready", "made", ())
        assert (repository.made.chunker, repository.made.has_recovery) == ("content-64k", True)
        opened = Stored.open(open_store(str(short_dir / "backups")), Secret.recovery(recovery), short_dir / "cache")
        assert opened.keys.repository_id == repository.made.repository_id
        stats = await a.controller.repositories.stats("backups")
        assert (stats.manifests, stats.packs, stats.pack_bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("lock", "secret"),
    [("passphrase", Secret.passphrase("open sesame")), ("file", Secret.file(b"k" * 40)), ("open", Secret.none())],
)
async def test_it_opens_by_what_was_given(short_dir, lock, secret):
    async with site(short_dir) as a:
        _, recovery = await made(a, short_dir / "backups", lock=lock, secret=text(secret.content))
        Stored.open(open_store(str(short_dir / "backups")), secret, short_dir / "cache")
        assert bool(recovery) == (lock != "open")


async def test_no_secret_lies_open_in_the_state_of_the_controller(short_dir):
    phrase = b"open sesame, says the passphrase"
    async with site(short_dir) as a:
        access = S3Access(access_key_id="name", secret_access_key="a very secret key of S3")
        repository, recovery = await made(
            a, short_dir / "backups", lock="passphrase", secret=text(phrase), access=access
        )
        await ended(a, await a.controller.repositories.check("backups", CheckRequest(read=True)))
        told = repr(repository) + repr(RepositoryRequest("x", "/x", secret=text(phrase), access=access))
        data = short_dir / "site-a"
        files = [path for path in data.rglob("*") if path.is_file()]
        content = b"".join(path.read_bytes() for path in files) + told.encode()
        for secret in (phrase, text(phrase).encode(), recovery.encode(), b"a very secret key of S3"):
            assert secret not in content
        key = data / "controller" / KEY_FILE
        assert key.stat().st_mode & 0o077 == 0
        kept = await a.database.read(lambda tx: kept_place(Secrets(key.parent), tx, repository.id))
        assert (kept.place.secret, kept.place.access, kept.recovery) == (phrase, access, "")
        key.write_bytes(bytes(32))
        with pytest.raises(SecretLostError):
            await a.database.read(lambda tx: kept_place(Secrets(key.parent), tx, repository.id))


async def test_a_check_names_what_is_damaged_and_a_prune_removes_what_is_not_needed(short_dir):
    address, secret = short_dir / "backups", Secret.file(b"k" * 40)
    async with site(short_dir) as a:
        await made(a, address, lock="file", secret=text(secret.content))
        for fill, name in enumerate(("one", "two"), 1):
            await stored(short_dir, address, secret, name, fill)
        job, repository = await ended(a, await a.controller.repositories.check("backups", CheckRequest(read=True)))
        assert (job.state, repository.checked.fault_count, repository.checked.manifests) == ("done", 0, 2)
        assert repository.checked.read_bytes > 0
        (address / "manifests" / "one").unlink()
        for _ in range(2):  # what the first marks, the second removes
            job, repository = await ended(a, await a.controller.repositories.prune("backups", PruneRequest(0)))
            assert (job.state, repository.state, repository.progress) == ("done", "ready", WorkProgress())
        assert (await a.controller.repositories.stats("backups")).packs == 2  # content, and pages
        pack = max((path for path in (address / "packs").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:-100])
        _, repository = await ended(a, await a.controller.repositories.check("backups", CheckRequest(read=True)))
        faults = repository.checked.faults
        assert repository.checked.fault_count == len(faults) >= 1
        assert any(fault.manifests == ("two",) for fault in faults)


async def test_one_that_is_there_is_used_only_when_that_is_said(short_dir):
    address = short_dir / "backups"
    async with site(short_dir) as a:
        repository, recovery = await made(a, address)
        with pytest.raises(ConflictError, match="has the address"):
            await a.controller.repositories.create(RepositoryRequest("other", f"{address}/"))
        await a.controller.repositories.delete("backups")
        assert await a.database.read(lambda tx: tx.execute("SELECT * FROM secrets")) == []
        begun, _ = await a.controller.repositories.create(RepositoryRequest("again", str(address)))
        job = await a.job(begun.job_id)
        assert (job.state, job.problem.code) == ("failed", "repository_exists")
        assert job.problem.next_command.endswith("--existing")
        wrong = RepositoryRequest("again", str(address), lock="file", secret=text(b"k" * 32), existing=True)
        job = await a.job((await a.controller.repositories.create(wrong))[0].job_id)
        assert (job.state, job.problem.code) == ("failed", "repository_key")
        again, none = await made(a, address, lock="recovery", secret=text(recovery.encode()), existing=True)
        assert (again.made.repository_id, none) == (repository.made.repository_id, "")


async def test_work_is_done_one_at_a_time_and_can_be_given_up(short_dir):
    async with site(short_dir) as a:
        repository, _ = await made(a, short_dir / "backups")
        agent = a.agents["node-1"][0]
        with pytest.raises(ConflictError, match="no work"):
            await a.controller.repositories.cancel("backups")
        kept = await a.database.read(lambda tx: kept_place(a.controller._secrets, tx, repository.id))
        async with agent._repositories._opened.changing(kept.place):  # as long as another writes
            begun = await a.controller.repositories.prune("backups", PruneRequest(0))
            await a.until(REPOSITORIES, "backups", lambda one: one.progress.phase == "waiting")
            with pytest.raises(RepositoryBusyError):
                await a.controller.repositories.check("backups", CheckRequest())
            with pytest.raises(RepositoryBusyError):
                await a.controller.repositories.delete("backups")
            await a.controller.repositories.cancel("backups")
            job, after = await ended(a, begun)
        assert (job.state, after.state, after.problem.code) == ("cancelled", "ready", "cancelled")
        assert agent._repositories._works == {}


@pytest.mark.parametrize(
    ("request_of", "error"),
    [
        ({"address": "backups"}, InvalidInputError),
        ({"address": "/srv/../etc"}, InvalidInputError),
        ({"address": "ftp://host/backups"}, InvalidInputError),
        ({"lock": "passphrase"}, InvalidInputError),
        ({"secret": text(b"too much")}, InvalidInputError),
        ({"lock": "file", "secret": text(b"short")}, WrongKeyError),
        ({"lock": "file", "secret": "no base64!"}, InvalidInputError),
        ({"existing": True}, InvalidInputError),
        ({"lock": "recovery", "secret": text(b"AAAA")}, InvalidInputError),
        ({"lock": "recovery", "secret": text(b"AAAA"), "existing": True}, WrongKeyError),
        ({"node": "node-9"}, NovaCronError),
        ({"name": "Not A Name"}, InvalidInputError),
    ],
)
async def test_what_can_never_work_is_told_at_once(short_dir, request_of, error):
    async with site(short_dir) as a:
        request = RepositoryRequest(**{"name": "backups", "address": "/srv/backups", **request_of})
        with pytest.raises(error):
            await a.controller.repositories.create(request)
        assert await a.database.read(lambda tx: list(REPOSITORIES.every(tx))) == []


async def test_a_store_that_cannot_be_reached_leaves_no_record(short_dir):
    (short_dir / "file").write_text("no folder")
    async with site(short_dir) as a:
        begun, _ = await a.controller.repositories.create(RepositoryRequest("backups", str(short_dir / "file")))
        job = await a.job(begun.job_id)
        assert (job.state, job.problem.code) == ("failed", "store")
        assert await a.database.read(lambda tx: REPOSITORIES.find(tx, RepositoryId(begun.id))) is None


async def test_what_a_weak_store_cannot_do_is_said(short_dir, weak_s3):
    async with site(short_dir) as a:
        repository, _ = await made(a, f"s3://{BUCKET}/told", access=weak_s3.access)
        assert len(repository.warnings) == 2
        assert not repository.made.traits.conditional_create

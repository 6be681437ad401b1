"""Backups from their request to the manifest, on drivers in memory; the repository is the real one."""

from contextlib import asynccontextmanager

import pytest

from novacron.control.kinds import BACKUPS
from novacron.core.errors import ConflictError
from novacron.protocol.rest import BackupRequest, CheckRequest, RepositoryRequest, StopRequest
from support.clusters import cluster, in_memory


@asynccontextmanager
async def with_vm_and_repository(directory):
    async with cluster("site-a", directory, in_memory()) as a:
        await a.boot_small()
        begun, _ = await a.controller.repositories.create(RepositoryRequest("backups", str(directory / "backups")))
        assert (await a.job(begun.job_id)).state == "done"
        yield a


async def made(a, **request):
    begun = await a.controller.backups.run("demo", BackupRequest("backups", **request))
    job = await a.job(begun.job_id)
    assert job.state == "done", job
    return (await a.database.read(lambda tx: BACKUPS.get(tx, begun.id))).value


async def test_a_vm_is_backed_up_while_it_runs_and_when_it_is_off(short_dir):
    async with with_vm_and_repository(short_dir) as a:
        first, second = await made(a), await made(a)
        assert first.facts.full_because
        assert (second.facts.base, second.facts.full_because) == (first.id, "")
        await a.controller.vms.stop("demo", StopRequest(force=True))
        third = await made(a)
        assert (third.state, third.facts.consistency, third.repository_name) == ("ready", "off", "backups")
        checking = await a.controller.repositories.check("backups", CheckRequest(read=True))
        assert (await a.job(checking.job_id)).state == "done"
        assert (await a.controller.repositories.stats("backups")).manifests == 3


async def test_a_backup_is_deleted_and_a_repository_with_backups_is_not_forgotten(short_dir):
    async with with_vm_and_repository(short_dir) as a:
        backup = await made(a)
        with pytest.raises(ConflictError, match="backups are in repository"):
            await a.controller.repositories.delete("backups")
        with pytest.raises(ConflictError, match="nothing to give up"):
            await a.controller.backups.cancel(backup.id)
        begun = await a.controller.backups.delete(backup.id)
        with pytest.raises(ConflictError, match="is deleting"):
            await a.controller.backups.delete(backup.id)
        assert (await a.job(begun.job_id)).state == "done"
        assert await a.database.read(lambda tx: BACKUPS.find(tx, backup.id)) is None
        assert (await a.controller.repositories.stats("backups")).manifests == 0
        await a.controller.repositories.delete("backups")

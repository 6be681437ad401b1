"""The journey of the demo guest: made at one site, moved to the other while it works, and back.

The guest itself is the judge: its workload compares every page of its memory and every record on its disk with what
they must be, after each move.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from novacron.cli.client import Client
from novacron.cli.kinds import JOBS, MIGRATIONS, VMS
from novacron.cli.watching import check_job, until, watch_one
from novacron.core.units import MIB
from novacron.launch.demo.console import workload_console
from novacron.launch.demo.errors import DemoError, MoveFailedError, UnverifiedError
from novacron.launch.demo.part import Tell
from novacron.launch.demo.site import DemoSite
from novacron.launch.guest.build import GuestFiles
from novacron.protocol.migration import MigrationPolicy, MigrationSummary
from novacron.protocol.resources import Image, Migration, PeerCluster, Vm
from novacron.protocol.rest import DiskRequest, Invitation, InviteRequest, JoinRequest, MigrateRequest, VmRequest

VM: Final = "demo"
MEMORY_BYTES: Final = 512 * MIB
PART: Final = MIB
DOWNTIME_MS: Final = 300
POLICY: Final = MigrationPolicy(max_downtime_ms=DOWNTIME_MS, verify_window_ms=0)  # back as soon as it is there
Watch = Callable[[Migration], None]


class Trip(Struct, frozen=True):
    """One move, and what the guest found after it."""

    source: str
    target: str
    migration: Migration
    pages: int  # compared by the guest
    records: int
    errors: int
    lost: int
    doubled: int

    @property
    def summary(self) -> MigrationSummary:
        """The figures of a migration that has succeeded."""
        summary = self.migration.summary
        assert summary is not None  # noqa: S101 - the outcome comes with its figures
        return summary

    @property
    def verified(self) -> bool:
        """Nothing was wrong."""
        return self.summary.verified and self.errors == self.lost == self.doubled == 0


async def join(a: DemoSite, b: DemoSite) -> None:
    """One invites, the other joins."""
    made = await asyncio.to_thread(a.client.post, "/federation/invite", Invitation, InviteRequest())
    await asyncio.to_thread(b.client.post, "/federation/join", PeerCluster, JoinRequest(made.value.invitation))


async def bring_images(site: DemoSite, guest: GuestFiles) -> None:
    """Import the guest's files."""
    await bring_boot_files(site, guest)
    await asyncio.to_thread(_upload, site.client, "demo-disk", guest.disk, "qcow2")


async def bring_boot_files(site: DemoSite, guest: GuestFiles) -> None:
    """Import the guest's kernel and initrd."""
    for name, path in (("demo-kernel", guest.kernel), ("demo-initrd", guest.initrd)):
        await asyncio.to_thread(_upload, site.client, name, path, "blob")


async def settle_in(site: DemoSite, arguments: str, *, vm: str = VM, memory_bytes: int = MEMORY_BYTES) -> Vm:
    """Make the VM of the images, and see its workload work; ``arguments`` are its kernel's."""
    request = VmRequest(
        name=vm,
        memory_bytes=memory_bytes,
        kernel="demo-kernel",
        initrd="demo-initrd",
        append=arguments,
        disks=(DiskRequest(image="demo-disk"),),
    )
    made = await asyncio.to_thread(_create, site.client, request)
    async with workload_console(site.url, site.token, vm) as guest_console:
        await guest_console.wait_for("t")
    return made


async def travel(
    source: DemoSite,
    target: DemoSite,
    policy: MigrationPolicy,
    watch: Watch,
    *,
    vm: str = VM,
    tell: Tell = lambda _: None,
) -> Trip:
    """Move the VM and let the guest verify itself; raises UnverifiedError, or what the last attempt failed for.

    An attempt that breaks leaves the guest where it was. That is told, and the next one is followed.
    """
    migration = await asyncio.to_thread(_migrate, source.client, vm, target.name, policy, watch)
    while migration.retried_by is not None:
        tell(f"{_failed(migration).cause}; the guest goes on at {source.name}, and it is tried again")
        migration = await asyncio.to_thread(follow, source.client, migration.retried_by, watch)
    return await arrive(source, target, migration, vm=vm)


async def arrive(source: DemoSite, target: DemoSite, migration: Migration, *, vm: str = VM) -> Trip:
    """Let a guest that has been moved verify itself; raises UnverifiedError, or what the migration failed for."""
    if migration.outcome != "succeeded":
        raise _failed(migration)
    await asyncio.to_thread(_arrived, target.client, vm)
    async with workload_console(target.url, target.token, vm) as console:
        found = await console.check(migration.id)
    trip = Trip(
        source=source.name,
        target=target.name,
        migration=migration,
        pages=found["pages"],
        records=found["records"],
        errors=found["errors"],
        lost=found["lost"],
        doubled=found["doubled"],
    )
    if not trip.verified:
        raise UnverifiedError(f"after the way from {source.name} to {target.name} the guest found: {found}")
    return trip


def _upload(client: Client, name: str, path: Path, image_format: str) -> None:
    def parts() -> Iterator[bytes]:
        with path.open("rb") as file:
            while data := file.read(PART):
                yield data

    client.upload("/images", Image, {"name": name, "format": image_format}, parts(), path.stat().st_size)


def _create(client: Client, request: VmRequest) -> Vm:
    made = client.post("/vms", Vm, request)
    job_id = made.location.rpartition("/")[2]
    sight = until(client, VMS, made, job_id, lambda vm: vm.state != "creating")
    check_job(client.get(JOBS, job_id).value)
    if sight.value is None:
        raise DemoError("the demo guest went away while it was made", next_command="novacron job list")
    return sight.value


def _migrate(client: Client, vm: str, target: str, policy: MigrationPolicy, watch: Watch) -> Migration:
    begun = client.post("/migrations", Migration, MigrateRequest(vm, target, policy))
    return follow(client, begun.value.id, watch)


def follow(client: Client, attempt: str, watch: Watch) -> Migration:
    """Watch an attempt to its end; it blocks."""
    for sight in watch_one(client, MIGRATIONS, attempt):
        if sight.value is None or sight.lost:
            continue
        watch(sight.value)
        if sight.value.outcome:
            return sight.value
    raise DemoError("the migration's record went away")


def _arrived(client: Client, vm: str) -> None:
    for sight in watch_one(client, VMS, vm):
        if sight.value is not None and sight.value.state == "running":
            return


def _failed(migration: Migration) -> MoveFailedError:
    problem = migration.problem
    if problem is None:
        return MoveFailedError(f"the migration was {migration.outcome}")
    return MoveFailedError(f"the migration failed ({problem.code}): {problem.cause}", next_command=problem.next_command)


def plain(trip: Trip) -> dict[str, Any]:
    """For programs: the fields that cli.md promises, flat."""
    flat: dict[str, Any] = msgspec.to_builtins(trip.summary)
    split = flat.pop("split")
    found = {"pages": trip.pages, "records": trip.records, "errors": trip.errors + trip.lost + trip.doubled}
    return {"source": trip.source, "target": trip.target, **flat, **split, **found, "outcome": trip.migration.outcome}

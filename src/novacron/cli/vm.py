"""``novacron vm``."""

from pathlib import Path

import click

from novacron.cli import checkpoint, vm_requests, watching
from novacron.cli.kinds import JOBS, VMS, Found, at
from novacron.cli.measures import DURATION, SIZE
from novacron.cli.output import Column
from novacron.cli.session import Session, in_session
from novacron.cli.texts import ago, moment, problem_text
from novacron.core.units import format_size
from novacron.protocol.resources import Job, Vm
from novacron.protocol.rest import ResizeRequest, StopRequest, TakeOverRequest, VmRequest

STOP_MARGIN_S = 30.0


@click.group("vm")
def group() -> None:
    """VMs: make, run, look at and remove them."""


@group.command("create")
@click.argument("name")
@click.option("--memory", type=SIZE, required=True, help="For example 1GiB.")
@click.option("--vcpus", type=int, default=1, show_default=True)
@click.option("--image", help="Image of the first disk.")
@click.option("--kernel", default="", help="Image of a kernel: boots without firmware.")
@click.option("--initrd", default="", help="Image of an initrd, with --kernel.")
@click.option("--append", default="", help="The kernel's arguments, with --kernel.")
@click.option("--disk", "disks", multiple=True, metavar="SIZE|IMAGE[:SIZE]", help="One more disk; may be repeated.")
@click.option("--nic", "nics", multiple=True, metavar="user|tap:BRIDGE|none", help="A network card; may be repeated.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True)
@click.option("--machine", metavar="TYPE", help="QEMU machine type.")
@click.option("--cpu", metavar="MODEL", help="QEMU CPU model.")
@click.option(
    "--cloud-init",
    type=click.Path(exists=True, path_type=Path),
    help="user-data for the first boot, or a folder with user-data, meta-data, network-config.",
)
@click.option("--node", default="", help="Where to run; else the cluster chooses.")
@click.option("--no-start", is_flag=True, help="Make it, and leave it off.")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def create(
    session: Session,
    name: str,
    *,
    memory: int,
    vcpus: int,
    image: str | None,
    kernel: str,
    initrd: str,
    append: str,
    disks: tuple[str, ...],
    nics: tuple[str, ...],
    firmware: str,
    machine: str | None,
    cpu: str | None,
    cloud_init: Path | None,
    node: str,
    no_start: bool,
    no_wait: bool,
) -> None:
    """Make a VM that boots from an image or from a kernel."""
    request = VmRequest(
        name=name,
        memory_bytes=memory,
        vcpus=vcpus,
        firmware=firmware,
        kernel=kernel,
        initrd=initrd,
        append=append,
        disks=tuple(vm_requests.parse_disk(disk) for disk in ([image] if image else []) + list(disks)),
        nics=tuple(map(vm_requests.parse_nic, nics)),
        cloud_init=vm_requests.read_seed(cloud_init) if cloud_init else None,
        node=node,
        start=not no_start,
        **({"machine": machine} if machine else {}),
        **({"cpu": cpu} if cpu else {}),
    )
    made = session.client.post("/vms", Vm, request)
    if no_wait:
        session.output.said(made.plain(), f"VM {name} is being made: novacron vm show {name}{session.context_flag}")
        return
    job_id = made.location.rpartition("/")[2]
    with session.output.working(f"making VM {name}"):
        watching.until(session.client, VMS, made, job_id, lambda vm: vm.state != "creating")
    _show(session, session.client.get(VMS, made.value.id))


@group.command("list")
@in_session
def list_vms(session: Session) -> None:
    """List the VMs of the cluster."""
    names = session.node_names()
    columns: tuple[Column[Vm], ...] = (
        Column("NAME", lambda vm: vm.name),
        Column("STATE", lambda vm: vm.state),
        Column("VCPUS", lambda vm: str(vm.spec.vcpus)),
        Column("MEMORY", lambda vm: format_size(vm.spec.memory_bytes)),
        Column("DISKS", lambda vm: format_size(sum(disk.size_bytes for disk in vm.spec.disks))),
        Column("NODE", lambda vm: names.get(vm.node_id or "", vm.node_id or "")),
        Column("MADE", lambda vm: ago(vm.created_at)),
    )
    session.output.rows(
        session.client.list(VMS),
        columns,
        empty="There are no VMs: novacron vm create NAME --memory 1GiB --image IMAGE",
    )


@group.command("show")
@click.argument("vm")
@in_session
def show(session: Session, vm: str) -> None:
    """Show one VM."""
    _show(session, session.client.get(VMS, vm))


@group.command("start")
@click.argument("vm")
@in_session
def start(session: Session, vm: str) -> None:
    """Boot a VM that is off."""
    _act(session, vm, "start", f"VM {vm} runs")


@group.command("stop")
@click.argument("vm")
@click.option("--force", is_flag=True, help="Pull the plug instead of pressing the power button.")
@click.option("--timeout", type=DURATION, default="60s", show_default=True, help="How long the guest may take.")
@in_session
def stop(session: Session, vm: str, *, force: bool, timeout: int) -> None:
    """Press the power button and wait until the guest is off."""
    request = StopRequest(force, timeout)
    path = at(VMS, vm, "stop")
    with session.output.working(f"stopping VM {vm}"):
        found = session.client.post(path, Vm, request, timeout_s=timeout / 1000 + STOP_MARGIN_S)
    session.output.said(found.plain(), f"VM {vm} is off")


@group.command("pause")
@click.argument("vm")
@in_session
def pause(session: Session, vm: str) -> None:
    """Hold a VM; its memory stays."""
    _act(session, vm, "pause", f"VM {vm} is paused")


@group.command("resume")
@click.argument("vm")
@in_session
def resume(session: Session, vm: str) -> None:
    """Let a paused VM go on."""
    _act(session, vm, "resume", f"VM {vm} runs")


@group.command("resize")
@click.argument("vm")
@click.option("--vcpus", type=int, help="Of a VM that is off.")
@click.option("--memory", type=SIZE, help="Of a VM that is off.")
@click.option("--disk", "disks", multiple=True, metavar="ID=SIZE", help="Disks only grow; may be repeated.")
@in_session
def resize(session: Session, vm: str, *, vcpus: int | None, memory: int | None, disks: tuple[str, ...]) -> None:
    """Change CPUs, memory and the size of disks."""
    if vcpus is None and memory is None and not disks:
        raise click.UsageError("nothing to change: give --vcpus, --memory or --disk")
    request = ResizeRequest(vcpus, memory, dict(map(vm_requests.parse_disk_size, disks)))
    _show(session, session.client.post(at(VMS, vm, "resize"), Vm, request))


@group.command("delete")
@click.argument("vm")
@click.option("--force", is_flag=True, help="Even if it runs.")
@click.option("--no-wait", is_flag=True, help="Return once the work has begun.")
@in_session
def delete(session: Session, vm: str, *, force: bool, no_wait: bool) -> None:
    """Remove a VM with its disks."""
    client = session.client
    found = client.get(VMS, vm)
    job = client.delete(at(VMS, found.value.id), Job, force=str(force).lower())
    if not no_wait:
        with session.output.working(f"deleting VM {vm}"):
            watching.until(client, VMS, found, job.value.id, lambda _: False)
        job = client.get(JOBS, job.value.id)
    session.output.said(job.plain(), f"VM {vm} is {'being deleted' if no_wait else 'deleted'}")


@group.command("take-over")
@click.argument("vm")
@click.option("--attest", required=True, metavar="TEXT", help="Your word that nobody else runs it; it is recorded.")
@in_session
def take_over(session: Session, vm: str, *, attest: str) -> None:
    """Own a VM again whose other owner is lost for good."""
    path = at(VMS, vm, "take-over")
    found = session.client.post(path, Vm, TakeOverRequest(attest))
    session.output.said(found.plain(), f"VM {vm} is this cluster's again, at epoch {found.value.owner_epoch}")


@group.command("console")
@click.argument("vm")
@click.option(
    "--linger",
    type=DURATION,
    default="1s",
    show_default=True,
    help="After piped input has ended, leave once the guest has been silent for this long.",
)
@in_session
def console(session: Session, vm: str, *, linger: int) -> None:
    """Connect this terminal with the VM's serial console. Ctrl-] leaves."""
    from novacron.cli.console import connect  # noqa: PLC0415 - a help text needs no WebSocket

    connect(session.context, vm, linger_s=linger / 1000)


group.add_command(checkpoint.group)


def _act(session: Session, vm: str, action: str, said: str) -> None:
    found = session.client.post(at(VMS, vm, action), Vm)
    session.output.said(found.plain(), said)


def _show(session: Session, found: Found[Vm]) -> None:
    vm = found.value
    names = session.node_names()
    disks = [f"{disk.id} {format_size(disk.size_bytes)}" for disk in vm.spec.disks]
    nics = [f"{nic.id} {nic.mode} {nic.bridge} {nic.mac}".replace("  ", " ") for nic in vm.spec.nics]
    problem = vm.problem
    facts = (
        ("name", vm.name),
        ("id", vm.id),
        ("state", vm.state),
        ("node", names.get(vm.node_id or "", vm.node_id or "")),
        ("vcpus", str(vm.spec.vcpus)),
        ("memory", f"{format_size(vm.spec.memory_bytes)} ({vm.spec.memory_bytes} bytes)"),
        ("boots from", "its kernel" if vm.spec.boot else f"its first disk ({vm.spec.firmware})"),
        ("machine", f"{vm.spec.machine}, {vm.spec.cpu}"),
        ("disks", "\n".join(disks)),
        ("network", "\n".join(nics)),
        ("migration", vm.migration_id or ""),
        ("made", moment(vm.created_at)),
        ("problem", problem_text(problem.code, problem.cause, problem.next_command) if problem else ""),
    )
    session.output.facts(found, facts)

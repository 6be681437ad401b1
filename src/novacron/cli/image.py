"""``novacron image``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from novacron.cli.kinds import IMAGES, Found, at
from novacron.cli.output import Column, Output
from novacron.cli.session import Session, in_session
from novacron.core.units import MIB, format_size
from novacron.protocol.resources import Image

COLUMNS: tuple[Column[Image], ...] = (
    Column("NAME", lambda image: image.name),
    Column("FORMAT", lambda image: image.format),
    Column("SIZE", lambda image: format_size(image.size_bytes)),
    Column("DISK", lambda image: format_size(image.virtual_size_bytes) if image.virtual_size_bytes else ""),
    Column("ID", lambda image: image.id),
)
QCOW2_MAGIC: Final = b"QFI\xfb"
LINUX_MAGIC: Final = b"HdrS"  # of a bootable kernel, x86 boot protocol
LINUX_MAGIC_AT: Final = 0x202
ARCHIVES: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"070701", b"BZh")  # forms of an initrd


@click.group("image")
def group() -> None:
    """Images: what VMs are made from (disks, kernels, initrds)."""


@group.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Else the file's name without its ending.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["raw", "qcow2", "blob"]),
    help="blob: a kernel or an initrd. Else guessed from the content.",
)
@in_session
def import_image(session: Session, file: Path, *, name: str | None, image_format: str | None) -> None:
    """Upload a file."""
    query = {"name": name or file.stem, "format": image_format or guess_format(file)}
    size = file.stat().st_size
    parts = _shown(session.output, _parts(file), size, query["name"])
    _show(session, session.client.upload(IMAGES.path, Image, query, parts, size))


@group.command("list")
@in_session
def list_images(session: Session) -> None:
    """List the images of the cluster."""
    session.output.rows(
        session.client.list(IMAGES), COLUMNS, empty="There are no images: novacron image import FILE --name NAME"
    )


@group.command("show")
@click.argument("image")
@in_session
def show(session: Session, image: str) -> None:
    """Show one image."""
    _show(session, session.client.get(IMAGES, image))


@group.command("delete")
@click.argument("image")
@in_session
def delete(session: Session, image: str) -> None:
    """Remove an image; VMs made from it keep their disks."""
    found = session.client.get(IMAGES, image)
    session.client.remove(at(IMAGES, found.value.id))
    session.output.said(found.plain(), f"image {found.value.name} is deleted")


def guess_format(file: Path) -> str:
    """What a file is, by its first bytes: qcow2, a blob (kernel, initrd), else a raw disk."""
    with file.open("rb") as opened:
        head = opened.read(LINUX_MAGIC_AT + len(LINUX_MAGIC))
    if head.startswith(QCOW2_MAGIC):
        return "qcow2"
    return "blob" if head[LINUX_MAGIC_AT:] == LINUX_MAGIC or head.startswith(ARCHIVES) else "raw"


def _show(session: Session, found: Found[Image]) -> None:
    image = found.value
    facts = (
        ("name", image.name),
        ("id", image.id),
        ("format", image.format),
        ("size", f"{format_size(image.size_bytes)} ({image.size_bytes} bytes)"),
        ("disk", format_size(image.virtual_size_bytes) if image.virtual_size_bytes else ""),
        ("sha256", image.sha256),
    )
    session.output.facts(found, facts)


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while part := opened.read(MIB):
            yield part


def _shown(output: Output, parts: Iterator[bytes], size: int, name: str) -> Iterator[bytes]:
    """The same parts, with a bar on a terminal."""
    if not output.draws_progress:
        yield from parts
        return
    from rich.console import Console  # noqa: PLC0415 - only when drawing on a terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"image {name}", total=size)
        for part in parts:
            yield part
            progress.advance(task, len(part))

"""A VM's disks as they are at one instant, all of them at the same one, whether it runs or is off.

Bitmaps that outlive the VM's instances tell what has changed since an earlier instant. None of them ever stops: what
breaks off leaves the older one as good as it was. States: nothing is held, ``begin``, held, ``end``.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # which names this in turn
    from novacron.hypervisor.driver import DiskExport


class PointInTime(Protocol):
    """Every method raises HypervisorError; ``end`` may be called in any state, also of another process's."""

    async def marks(self, prefix: str) -> dict[str, bool]:
        """Bitmaps whose name begins so, on any disk, and whether each is there and whole on all of them.

        One is not whole when QEMU has not ended in order since: writes may be missing in it.
        """
        ...

    async def begin(self, *, since: str, onward: str) -> "list[DiskExport]":
        """Hold the disks as they are now. ``onward`` marks what changes from now on, perhaps a little before.

        The exports, in the order of the VM's disks, have as context what ``since`` (if not empty) has marked, at least
        up to now. Where several disks cannot be held at once, a running guest stands still for some milliseconds.
        """
        ...

    async def end(self) -> None:
        """Let go; bitmaps stay."""
        ...

    async def forget(self, bitmap: str) -> None:
        """Remove a bitmap, whole or not; harmless when there is none."""
        ...

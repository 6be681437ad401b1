"""Where a VM may go: this cluster or a peer, behind the same words."""

from typing import Protocol, TypeVar

from msgspec import Struct

from novacron.control.admission import Admission
from novacron.control.images import Images
from novacron.control.peers import Peers
from novacron.core.ids import ClusterId
from novacron.protocol.migration import IncomingOrder, IncomingReady, MigrationRef, MigrationReport
from novacron.protocol.node import ImagePresence, ImageRef, ImageWrite, Nothing
from novacron.protocol.plan import Outlook, OutlookRequest
from novacron.protocol.resources import Image

A = TypeVar("A", bound=Struct)


class Site(Protocol):
    """A cluster that can take a VM."""

    async def supply(self, image: Image) -> None:
        """Have this image there, whole."""
        ...

    async def outlook(self, request: OutlookRequest) -> Outlook:
        """Where a VM would go there, and what of it lies there; raises what ``admit`` would."""
        ...

    async def admit(self, order: IncomingOrder) -> IncomingReady:
        """Make ready; raises what that cluster refuses."""
        ...

    async def dismiss(self, ref: MigrationRef) -> Nothing:
        """Drop what was made ready."""
        ...

    async def progress(self, report: MigrationReport) -> Nothing:
        """Tell how far it is."""
        ...


class OwnSite:
    """This cluster: from one of its nodes to another."""

    def __init__(self, admission: Admission) -> None:
        self.outlook = admission.outlook
        self.admit = admission.admit
        self.dismiss = admission.dismiss
        self.progress = admission.progress

    async def supply(self, image: Image) -> None:
        """It is here."""


class PeerSite:
    """Another cluster, by its controller."""

    def __init__(self, peers: Peers, cluster_id: ClusterId, images: Images) -> None:
        self._peers = peers
        self._cluster_id = cluster_id
        self._images = images

    async def supply(self, image: Image) -> None:
        """Ship it, from where the last try broke off."""

        async def presence(ref: ImageRef) -> ImagePresence:
            return await self._call("peer.image_presence", ref, ImagePresence)

        async def write(part: ImageWrite) -> ImagePresence:
            return await self._call("peer.image_write", part, ImagePresence)

        await self._images.ship(image, presence, write)

    async def outlook(self, request: OutlookRequest) -> Outlook:
        """Ask the peer."""
        return await self._call("peer.outlook", request, Outlook)

    async def admit(self, order: IncomingOrder) -> IncomingReady:
        """Ask the peer."""
        return await self._call("peer.admit", order, IncomingReady)

    async def dismiss(self, ref: MigrationRef) -> Nothing:
        """Tell the peer."""
        return await self._call("peer.dismiss", ref, Nothing)

    async def progress(self, report: MigrationReport) -> Nothing:
        """Tell the peer."""
        return await self._call("peer.progress", report, Nothing)

    async def _call(self, method: str, request: Struct, answer: type[A]) -> A:
        return await self._peers.call(await self._peers.get(self._cluster_id), method, request, answer)

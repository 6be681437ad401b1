"""Whom this cluster trusts, and what it proves itself with."""

import asyncio
from pathlib import Path
from typing import Final

from novacron.core.clock import Clock
from novacron.wire.authority import LEAF_LIFE_S, ClusterAuthority, csr_for, new_key
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId

LOOK_EVERY_S: Final = 60.0


class TrustBundle:
    """The cluster's own authority, the controller's credentials, and the roots of peers."""

    def __init__(self, authority: ClusterAuthority, credentials: Credentials, directory: Path, clock: Clock) -> None:
        self._authority = authority
        self.credentials = credentials
        self._directory = directory
        self._clock = clock

    @classmethod
    def open(cls, data_dir: Path, trust_domain: str, clock: Clock) -> "TrustBundle":
        """What ``data_dir`` keeps; made at the first start."""
        roots, own = data_dir / "authority", data_dir / "credentials"
        identity = SpiffeId(trust_domain, "controller")
        if (roots / "root.key").exists():
            authority = ClusterAuthority.load(roots, trust_domain, clock)
        else:
            authority = ClusterAuthority.create(roots, trust_domain, clock)
        if (own / "process.key").exists():
            credentials = Credentials.load(own, clock)
        else:
            key = new_key()
            credentials = Credentials(
                key, authority.issue(csr_for(key), identity), {trust_domain: authority.root_pem}, clock
            )
            credentials.save(own)
        bundle = cls(authority, credentials, own, clock)
        bundle.renew_when_due()
        return bundle

    @property
    def root_pem(self) -> str:
        """The root certificate of this cluster."""
        return self._authority.root_pem

    def roots(self) -> dict[str, str]:
        """Root certificates by trust domain: the own cluster's and its peers'."""
        return self.credentials.trusted

    def issue(self, csr_pem: str, identity: SpiffeId) -> str:
        """A certificate for a process of this cluster; raises IdentityError."""
        return self._authority.issue(csr_pem, identity)

    async def trust(self, domain: str, root_pem: str) -> None:
        """Trust a peer's processes, also after the next start."""
        self.credentials.trust(domain, root_pem)
        await asyncio.to_thread(self.credentials.save, self._directory)

    async def distrust(self, domain: str) -> None:
        """Trust them no longer."""
        self.credentials.distrust(domain)
        await asyncio.to_thread(self.credentials.save, self._directory)

    async def keep_fresh(self) -> None:
        """Renew the controller's own certificate at half its life, for ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self.renew_when_due()

    def renew_when_due(self) -> None:
        """The authority is in this process: the next certificate is a matter of a signature."""
        if self.credentials.expires_at - self._clock.now() < LEAF_LIFE_S / 2:
            certificate = self._authority.issue(csr_for(self.credentials.key), self.credentials.identity)
            self.credentials.renew(certificate)
            self.credentials.save(self._directory)

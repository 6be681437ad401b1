"""Two clusters with real certificates, served over real TLS on loopback."""

from pathlib import Path

import pytest

from novacron.core.clock import SystemClock
from novacron.wire.authority import ClusterAuthority, csr_for, new_key
from novacron.wire.credentials import Credentials
from novacron.wire.identity import SpiffeId


class Site:
    """A cluster's authority, and credentials of its processes."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.authority = ClusterAuthority.create(directory / name, name, SystemClock())

    def credentials(self, kind: str = "controller", name: str = "", *, life_s: int = 3600, **trust: str) -> Credentials:
        key = new_key()
        identity = SpiffeId(self.name, kind, name)
        roots = {self.name: self.authority.root_pem, **{k.replace("_", "-"): v for k, v in trust.items()}}
        return Credentials(key, self.authority.issue(csr_for(key), identity, life_s=life_s), roots, SystemClock())


@pytest.fixture
def site_a(tmp_path: Path) -> Site:
    return Site("site-a", tmp_path)


@pytest.fixture
def site_b(tmp_path: Path) -> Site:
    return Site("site-b", tmp_path)

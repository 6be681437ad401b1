"""What a process proves itself with, and whom it trusts."""

import ssl
import tempfile
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from novacron.core.clock import Clock
from novacron.wire.authority import identity_in, key_pem, write_private
from novacron.wire.errors import CertificateExpiredError, IdentityError
from novacron.wire.identity import SpiffeId


class Credentials:
    """A key, its certificate, and the roots of trusted clusters by trust domain.

    A changed certificate or trust is effective on connections made from then on; ``verify`` is asked again by whoever
    wants a live connection checked.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate_pem: str, trust: dict[str, str], clock: Clock
    ) -> None:
        self._key = key
        self._clock = clock
        self._certificate_pem = certificate_pem
        self._trust = dict(trust)
        self.revision = 0  # counts changes: a cached TLS context is good for one

    @classmethod
    def load(cls, directory: Path, clock: Clock) -> Self:
        """What ``save`` has kept."""
        key, certificate = directory / "process.key", directory / "process.pem"
        loaded = cls(_load_key(key), certificate.read_text(), {}, clock)
        for path in (directory / "trust").glob("*.pem"):
            loaded.trust(path.stem, path.read_text())
        return loaded

    def save(self, directory: Path) -> None:
        """Keep everything in files that only their owner reads."""
        (directory / "trust").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(directory / "process.key", key_pem(self._key))
        write_private(directory / "process.pem", self._certificate_pem.encode())
        for path in (directory / "trust").glob("*.pem"):
            if path.stem not in self._trust:
                path.unlink()
        for domain, pem in self._trust.items():
            write_private(directory / "trust" / f"{domain}.pem", pem.encode())

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key, to sign the next request with."""
        return self._key

    @property
    def identity(self) -> SpiffeId:
        """Whom this process's own certificate names."""
        names = self._leaf().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return SpiffeId.parse(names.get_values_for_type(x509.UniformResourceIdentifier)[0])

    @property
    def expires_at(self) -> float:
        """End of the own certificate's time, in seconds since 1970."""
        return self._leaf().not_valid_after_utc.timestamp()

    @property
    def trusted(self) -> dict[str, str]:
        """Root certificates (PEM) by trust domain."""
        return dict(self._trust)

    def renew(self, certificate_pem: str) -> None:
        """Use the next certificate for new connections."""
        self._certificate_pem = certificate_pem
        self.revision += 1

    def trust(self, domain: str, root_pem: str) -> None:
        """Accept processes of another cluster."""
        self._trust[domain] = root_pem
        self.revision += 1

    def distrust(self, domain: str) -> None:
        """Accept them no longer."""
        self._trust.pop(domain, None)
        self.revision += 1

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3; a client may come without a certificate (then it is nobody), but not with a false one."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0  # every connection proves itself anew
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.3 towards processes of trusted clusters; raises CertificateExpiredError for the own certificate."""
        if self.expires_at <= self._clock.now():
            raise CertificateExpiredError(
                f"the certificate of {self.identity} has expired",
                next_command="novacron node invite (at the controller), then novacron node --invitation TEXT",
            )
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the name that counts is the SPIFFE id
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def verify(self, peer_der: bytes) -> SpiffeId:
        """Whom the peer's certificate names; raises IdentityError."""
        roots = {domain: x509.load_pem_x509_certificate(pem.encode()) for domain, pem in self._trust.items()}
        return identity_in(x509.load_der_x509_certificate(peer_der), roots, self._clock.now())

    def _leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._certificate_pem.encode())

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        for pem in self._trust.values():
            context.load_verify_locations(cadata=pem)
        with tempfile.TemporaryDirectory() as directory:  # the ssl module takes a key from a file only
            path = Path(directory) / "chain.pem"
            write_private(path, self._certificate_pem.encode() + key_pem(self._key))
            context.load_cert_chain(path)
        return context


def anonymous_context(root_pem: str) -> ssl.SSLContext:
    """For a first contact: the server proves itself by a root that is pinned, the client is nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name that counts is the SPIFFE id
    context.load_verify_locations(cadata=root_pem)
    return context


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path} is not a key of this process")
    return key

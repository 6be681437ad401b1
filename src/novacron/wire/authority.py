"""A cluster's certificate authority: one root key, short-lived certificates for its processes."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from novacron.core.clock import Clock
from novacron.wire.errors import IdentityError
from novacron.wire.identity import SpiffeId

ROOT_LIFE: Final = timedelta(days=3650)
LEAF_LIFE_S: Final = 24 * 3600
CLOCK_SKEW: Final = timedelta(minutes=5)


class ClusterAuthority:
    """Signs the certificates of one cluster, and of no other trust domain."""

    def __init__(
        self, trust_domain: str, key: ec.EllipticCurvePrivateKey, root: x509.Certificate, clock: Clock
    ) -> None:
        self.trust_domain = trust_domain
        self._key = key
        self._root = root
        self._clock = clock

    @classmethod
    def create(cls, directory: Path, trust_domain: str, clock: Clock) -> Self:
        """Make a new root and keep it in ``directory`` (key readable by its owner only)."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(clock.now(), UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"NovaCron {trust_domain}")])
        root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(directory / "root.key", key_pem(key))
        write_private(directory / "root.pem", root.public_bytes(serialization.Encoding.PEM))
        return cls(trust_domain, key, root, clock)

    @classmethod
    def load(cls, directory: Path, trust_domain: str, clock: Clock) -> Self:
        """The root that ``create`` has kept."""
        key = serialization.load_pem_private_key((directory / "root.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityError(f"{directory / 'root.key'} is not a key of this authority")
        return cls(trust_domain, key, x509.load_pem_x509_certificate((directory / "root.pem").read_bytes()), clock)

    @property
    def root_pem(self) -> str:
        """The root certificate, which others trust this cluster by."""
        return self._root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, csr_pem: str, identity: SpiffeId, *, life_s: int = LEAF_LIFE_S) -> str:
        """A certificate for whoever holds the key of the request; only ``identity`` is taken from the caller.

        Raises IdentityError when the request does not prove its key, or names another trust domain.
        """
        if identity.trust_domain != self.trust_domain:
            raise IdentityError(f"the authority of {self.trust_domain} does not sign names of {identity.trust_domain}")
        try:
            request = x509.load_pem_x509_csr(csr_pem.encode())
        except ValueError as error:
            raise IdentityError(f"the certificate request cannot be read: {error}") from error
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
            raise IdentityError("the certificate request does not prove that its sender holds the key")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._root.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(seconds=life_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key, unencrypted: it goes into files that only their owner reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def csr_for(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request that proves the key and asks for no name: the authority gives that."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def root_fingerprint(root_pem: str) -> str:
    """SHA-256 of a root certificate, in hex: what an invitation pins."""
    return x509.load_pem_x509_certificate(root_pem.encode()).fingerprint(hashes.SHA256()).hex()


def identity_in(certificate: x509.Certificate, roots: dict[str, x509.Certificate], now: float) -> SpiffeId:
    """Whom a peer's certificate names, when the root of *that* trust domain has signed it; raises IdentityError."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the other side's certificate names nobody") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError("the other side's certificate must hold exactly one name")
    identity = SpiffeId.parse(uris[0])
    root = roots.get(identity.trust_domain)
    if root is None:
        raise IdentityError(
            f"{identity} is of a cluster that is not trusted here", next_command="novacron federation list"
        )
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        raise IdentityError(f"{identity} was not signed by the root of its own cluster") from None
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise IdentityError(f"the certificate of {identity} has expired")
    return identity


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` as a whole, readable by its owner only."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.replace(path)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

"""How an S3 service is reached, and with which keys: from a file, or from the variables that S3 programs know."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from novacron.repository.errors import AddressError

VARIABLES: Final = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "ca_file": ("AWS_CA_BUNDLE",),
    "path_style": ("S3_PATH_STYLE",),
    "timeout_s": ("S3_TIMEOUT_S",),
}
SECRET: Final = frozenset({"secret_access_key", "session_token"})


class S3Access(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without ``endpoint`` it is Amazon's of the region. ``timeout_s`` is for one request, as with a pack of 16 MiB.

    ``ca_file`` names certificates in PEM of authorities beside those that the system trusts.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    ca_file: str = ""
    path_style: bool = True
    timeout_s: float = 120.0

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Without secrets, as ``repr``."""
        return [(name, "…" if name in SECRET else getattr(self, name)) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"S3Access({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def url(self, bucket: str) -> str:
        """Where requests for this bucket go."""
        url = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        scheme, _, host = url.partition("://")
        return url if self.path_style else f"{scheme}://{bucket}.{host}"

    def authorities(self) -> bytes:
        """PEM certificates, trusted beside the system's; empty without a file. Raises AddressError."""
        if not self.ca_file:
            return b""
        from cryptography import x509  # noqa: PLC0415 - every command knows this class, and none needs that

        try:
            content = Path(self.ca_file).read_bytes()
            x509.load_pem_x509_certificates(content)
        except (OSError, ValueError) as error:
            raise AddressError(f"{self.ca_file} holds no certificates that can be read: {error}") from error
        return content


def read_access(file: Path | None, environment: Mapping[str, str]) -> S3Access:
    """From the file alone, or, without one, from variables; raises AddressError, which never tells a secret."""
    if file is None:
        given = {
            key: next(environment[name] for name in names if environment.get(name))
            for key, names in VARIABLES.items()
            if any(environment.get(name) for name in names)
        }
        return _access(given, "the environment", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file")
    try:
        if file.stat().st_mode & 0o077:
            raise AddressError(f"others can read the S3 keys in {file}", next_command=f"chmod 600 {file}")
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise AddressError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    except tomllib.TOMLDecodeError:
        raise AddressError(f"{file} is not TOML", next_command=f"correct {file}") from None  # the text may be a secret
    return _access(content, str(file), f"correct {file}")


def _access(given: Mapping[str, object], where: str, next_command: str) -> S3Access:
    try:
        access = msgspec.convert(given, S3Access, strict=False)
    except msgspec.ValidationError as error:
        raise AddressError(f"{where} does not say how to reach S3: {error}", next_command=next_command) from None
    if access.endpoint and not access.endpoint.startswith(("http://", "https://")):
        raise AddressError(f"the S3 endpoint of {where} must begin with http:// or https://", next_command=next_command)
    return access

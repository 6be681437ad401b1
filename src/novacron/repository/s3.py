"""A store in a bucket of S3, or of what speaks like it: conditional puts, reads of parts, one request for each call.

Nothing is tried twice here: ``careful.CarefulStore`` does that.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from novacron.repository.errors import StoreError
from novacron.repository.s3_access import S3Access
from novacron.repository.s3_answers import Place, is_past_the_end, meaning
from novacron.repository.store import ObjectMissingError, StoredObject, checked

if TYPE_CHECKING:  # they exist for type checkers alone
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Credential

CONNECT_S: Final = 10.0


class S3Store:
    """See ``store.Store``; ``prefix`` may be empty. The service is to keep ``If-None-Match`` (see ``probe``)."""

    def __init__(self, bucket: str, prefix: str, access: S3Access) -> None:
        url = access.url(bucket)
        keys: S3Credential = {
            "access_key_id": access.access_key_id,
            "secret_access_key": access.secret_access_key,
            "token": access.session_token or None,
            "expires_at": None,
        }
        options: ClientConfig = {
            "allow_http": url.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_S, access.timeout_s)),
            "timeout": timedelta(seconds=access.timeout_s),
        }
        if authorities := access.authorities():
            options["root_certificate"] = authorities
        self._place = Place(bucket, url)
        self._bucket = Bucket(
            bucket,
            prefix=prefix or None,
            endpoint=url,
            region=access.region,
            virtual_hosted_style_request=not access.path_style,
            disable_bulk_delete=True,
            # Asked for them, the library shows no secrets, and takes none from the environment.
            credential_provider=lambda: keys,
            client_options=options,
            retry_config={"max_retries": 0},
        )

    def put(self, name: str, data: bytes) -> None:
        """One request that the service refuses when the name is taken."""
        try:
            obstore.put(self._bucket, checked(name), data, mode="create", use_multipart=False)
        except (BaseError, FileNotFoundError) as error:
            raise meaning(error, self._place, name) from None

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """One request, for no more than is wanted."""
        whole = offset == 0 and length is None
        end = None if length is None else offset + max(length, 1)  # a range of nothing cannot be asked for
        part: GetOptions = {"range": {"offset": offset} if end is None else (offset, end)}
        try:
            answer = obstore.get(self._bucket, checked(name), options=None if whole else part)
            data = bytes(answer.bytes())
            size_bytes = answer.meta["size"]
        except (BaseError, FileNotFoundError) as error:
            if is_past_the_end(error):
                return b""
            raise meaning(error, self._place, name) from None
        if len(data) != (size_bytes if end is None else min(end, size_bytes)) - offset:
            raise StoreError(
                f"S3 at {self._place.url} gave {len(data)} bytes of {name}, and not all that were asked for"
            )
        return data if length is None else data[:length]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Page by page."""
        try:
            for page in obstore.list(self._bucket, prefix):
                for found in page:
                    yield StoredObject(found["path"], found["size"], found["last_modified"].timestamp())
        except (BaseError, FileNotFoundError) as error:
            raise meaning(error, self._place, prefix) from None

    def delete(self, name: str) -> None:
        """One request."""
        try:
            obstore.delete(self._bucket, checked(name))
        except (BaseError, FileNotFoundError) as error:
            told = meaning(error, self._place, name)
            if not isinstance(told, ObjectMissingError):
                raise told from None

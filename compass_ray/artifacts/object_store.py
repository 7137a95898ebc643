"""Conditional puts on S3 and Cloud Storage: an object is replaced only if it is still the version that was read.

The store decides between concurrent writers. pyarrow has no conditional puts, so this module uses obstore, with the options
that pyarrow takes from the URI and the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.retries import to_user_error

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_RETRIES = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_PUBLIC = "anonymous"
_MAX_ATTEMPTS = 100
"""Attempts to extend an object; each failed one means that another writer was faster."""

ObjectVersion = Mapping[str, str] | None
"""Version of an object that was read, for a conditional put; None if the object did not exist."""


def supports_conditional_put(uri: str) -> bool:
    """Whether the store of a URI has conditional puts."""
    return urlsplit(uri).scheme in ("s3", "gs", "gcs")


@contextmanager
def wrap_store_errors(path: str) -> Iterator[None]:
    """Raise errors of the store as ArtifactError with the remedy."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise to_user_error(OSError(f"{type(error).__name__}: {error}"), path) from None


class ConditionalObjectStore:
    """Objects in the bucket of a run, by their pyarrow paths; call it within `wrap_store_errors`."""

    def __init__(self, uri: str, files: Files) -> None:
        """Open the bucket of a URI; ``files`` are on the same bucket."""
        self._store = _store(uri, files)

    def read(self, path: str) -> tuple[bytes | None, ObjectVersion]:
        """The object and its version; (None, None) if it does not exist."""
        try:
            got = self._store.get(_key(path))
        except FileNotFoundError:
            return None, None
        version = {name: got.meta.get(name) for name in ("e_tag", "version")}
        return bytes(got.bytes()), {name: value for name, value in version.items() if isinstance(value, str)}

    def put(self, path: str, data: bytes, version: ObjectVersion) -> bool:
        """Replace the object if it still has this version; return False if it has another one."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            self._store.put(_key(path), data, mode="create" if version is None else dict(version))  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def extend_object(self, path: str, extended: Callable[[bytes], bytes]) -> None:
        """Replace an object by ``extended`` of its content; retry if another writer was faster.

        Raises:
            ArtifactError: other writers were faster every time.
        """
        for _ in range(_MAX_ATTEMPTS):
            before, version = self.read(path)
            after = extended(before or b"")
            # If the object starts with our content, the put succeeded and only its response was lost.
            if self.put(path, after, version) or (self.read(path)[0] or b"").startswith(after):
                return
        raise ArtifactError(f"other processes changed {path} {_MAX_ATTEMPTS} times in a row; stop them and run again")


def _key(path: str) -> str:
    return path.partition("/")[2]


def _store(uri: str, files: Files) -> ObjectStore:
    """The bucket of a URI as an obstore store with pyarrow's options."""
    from obstore.store import GCSStore, S3Store

    parts, query = urlsplit(uri), dict(parse_qsl(urlsplit(uri).query))
    endpoint = f"{query.get('scheme', 'https')}://{query['endpoint_override']}" if "endpoint_override" in query else None
    amazon = parts.scheme == "s3"
    if amazon:
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: Any = _amazon(parts, endpoint, files) if amazon else _google(parts, endpoint)
    plain = {"allow_http": bool(endpoint and endpoint.startswith("http://"))}
    make: Any = S3Store if amazon else GCSStore
    store: ObjectStore = make(parts.hostname, client_options=plain, retry_config=_RETRIES, **options)
    return store


def _amazon(parts: SplitResult, endpoint: str | None, files: Files) -> dict[str, Any]:
    options: dict[str, Any] = {"region": files.filesystem.region or "us-east-1"}
    if endpoint:
        options["endpoint"] = endpoint
    if parts.username:
        options |= {"access_key_id": unquote(parts.username), "secret_access_key": unquote(parts.password or "")}
    elif provider := _profile_credentials():
        options["credential_provider"] = provider
    return options


def _google(parts: SplitResult, endpoint: str | None) -> dict[str, Any]:
    if parts.username != _PUBLIC:
        return {"base_url": endpoint} if endpoint else {}
    anonymous = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"service_account_key": json.dumps(anonymous | ({"gcs_base_url": endpoint} if endpoint else {}))}


def _profile_credentials() -> Any:
    """Credentials of the user's AWS profile through boto3, as obstore needs; None if the environment has keys or no profile."""
    has_profile = "AWS_PROFILE" in os.environ or Path("~/.aws/credentials").expanduser().is_file()
    if "AWS_ACCESS_KEY_ID" in os.environ or not has_profile:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise ArtifactError(
            "changing a live pointer with credentials of an AWS profile needs boto3; run 'pip install boto3' "
            "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    return Boto3CredentialProvider()

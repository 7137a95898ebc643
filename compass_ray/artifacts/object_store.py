"""Conditional puts on S3 and Cloud Storage: an object is replaced only while it is the one that was read.

Key property: the store itself decides between two writers, so neither needs to know of the other. pyarrow's filesystems
have no such put; obstore brings it, and is given what the URI and the environment give pyarrow. It knows no file of a run.
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
"""How often an addition is begun anew; each time, another writer was done."""

ObjectVersion = Mapping[str, str] | None
"""What a put names to replace just the object that was read; None where there was none."""


def supports_conditional_put(uri: str) -> bool:
    """Whether the store of a URI has conditional puts."""
    return urlsplit(uri).scheme in ("s3", "gs", "gcs")


@contextmanager
def wrap_store_errors(path: str) -> Iterator[None]:
    """Errors of the store as ArtifactError, with the remedy."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise to_user_error(OSError(f"{type(error).__name__}: {error}"), path) from None


class ConditionalObjectStore:
    """The bucket of a run, by the paths that pyarrow has for its objects; call it within `explaining`."""

    def __init__(self, uri: str, files: Files) -> None:
        """Reach the bucket of a URI, which ``files`` reach too."""
        self._store = _store(uri, files)

    def read(self, path: str) -> tuple[bytes | None, ObjectVersion]:
        """The object and its mark, None and None where there is none."""
        try:
            got = self._store.get(_key(path))
        except FileNotFoundError:
            return None, None
        marks = {name: got.meta.get(name) for name in ("e_tag", "version")}
        return bytes(got.bytes()), {name: mark for name, mark in marks.items() if isinstance(mark, str)}

    def put(self, path: str, data: bytes, mark: ObjectVersion) -> bool:
        """Put an object in the place of the one that was read under this mark; False where it is another by now."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            self._store.put(_key(path), data, mode="create" if mark is None else dict(mark))  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def extend_object(self, path: str, extended: Callable[[bytes], bytes]) -> None:
        """Replace an object by what is made of it, begun anew while another writer was faster.

        Raises:
            ArtifactError: others were faster every time.
        """
        for _ in range(_MAX_ATTEMPTS):
            before, mark = self.read(path)
            after = extended(before or b"")
            if self.put(path, after, mark) or (self.read(path)[0] or b"").startswith(after):  # the answer to it was lost
                return
        raise ArtifactError(f"{path} was changed by other processes {_MAX_ATTEMPTS} times in a row; end those and run again")


def _key(path: str) -> str:
    return path.partition("/")[2]


def _store(uri: str, files: Files) -> ObjectStore:
    """The bucket of a URI as pyarrow reads it, for obstore."""
    from obstore.store import GCSStore, S3Store

    parts, query = urlsplit(uri), dict(parse_qsl(urlsplit(uri).query))
    endpoint = f"{query.get('scheme', 'https')}://{query['endpoint_override']}" if "endpoint_override" in query else None
    amazon = parts.scheme == "s3"
    if amazon:
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: Any = _amazon(parts, endpoint, files) if amazon else _google(parts, endpoint)
    plain = {"allow_http": bool(endpoint and endpoint.startswith("http://"))}
    make: Any = S3Store if amazon else GCSStore
    found: ObjectStore = make(parts.hostname, client_options=plain, retry_config=_RETRIES, **options)
    return found


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
    nobody = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"service_account_key": json.dumps(nobody | ({"gcs_base_url": endpoint} if endpoint else {}))}


def _profile_credentials() -> Any:
    """Credentials of the user's AWS profile, which obstore leaves to boto3; None where the environment has some, or no boto3."""
    named = "AWS_PROFILE" in os.environ or Path("~/.aws/credentials").expanduser().is_file()
    if "AWS_ACCESS_KEY_ID" in os.environ or not named:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise ArtifactError(
            "credentials of an AWS profile need boto3 to change a live pointer: 'pip install boto3', "
            "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    return Boto3CredentialProvider()

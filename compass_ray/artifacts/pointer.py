"""A small JSON file that changes: replaced in one step, and only while it still says what its writer had read.

Key property: of two processes that read the same and then both replace it, one does and the other is told so. On a local
disk a lock decides; on S3 and Cloud Storage the store itself, by a conditional put, which pyarrow has none of and obstore
brings. Elsewhere the file is read once more before it is put, which leaves the moment between the two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from compass_ray.artifacts.files import Files
from compass_ray.artifacts.manifest import ArtifactError
from compass_ray.artifacts.retries import explained

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LOCKED_SECONDS = 30.0
_RETRIES = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_PUBLIC = "anonymous"


class LostRaceError(ArtifactError):
    """Another process replaced the file after it was read."""


class Pointer:
    """One such file of a run."""

    def __init__(self, files: Files, path: str, uri: str) -> None:
        """Point at ``path`` on the filesystem of ``files``, which ``uri`` reaches."""
        self._files = files
        self.path = path
        self._uri = uri

    def read(self) -> dict[str, Any] | None:
        """What it says, None where it is not there."""
        try:
            return dict(json.loads(self._files.read(self.path)))
        except FileNotFoundError:
            return None

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace it, whatever it says."""
        self._files.put(self.path, _encoded(value))

    def replace(self, value: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        """Replace it while it still says what was found, None for not being there.

        Raises:
            LostRaceError: it says something else by now, which stays.
            ArtifactError: the store refuses or fails.
        """
        if self._files.local:
            self._replace_locked(value, found)
        elif urlsplit(self._uri).scheme in ("s3", "gs", "gcs"):
            self._replace_remote(value, found)
        else:
            self._replace_checked(value, found)

    def _replace_checked(self, value: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        self._check(self.read(), found)
        self.write(value)

    def _replace_locked(self, value: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        from filelock import FileLock, Timeout

        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{self.path}.lock", timeout=_LOCKED_SECONDS):
                self._replace_checked(value, found)
        except Timeout:
            raise ArtifactError(f"{self.path}.lock is held by another process for {_LOCKED_SECONDS:g} s; end that one") from None

    def _replace_remote(self, value: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        store, key = _store(self._uri, self._files), self.path.partition("/")[2]
        try:
            said, version = _versioned(store, key)
            self._check(said, found)
            store.put(key, _encoded(value), mode="create" if said is None else version)  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError):
            if (now := _versioned(store, key)[0]) != json.loads(_encoded(value)):  # else it is our own put, whose answer was lost
                self._lost(now)
        except (BaseError, FileNotFoundError) as error:
            raise explained(OSError(f"{type(error).__name__}: {error}"), self.path) from None

    def _check(self, said: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> None:
        if said != (None if found is None else json.loads(_encoded(found))):
            self._lost(said)

    def _lost(self, said: Mapping[str, Any] | None) -> None:
        raise LostRaceError(f"{self.path} was changed meanwhile by another process and says {json.dumps(said)[:200]} now")


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()


def _versioned(store: ObjectStore, key: str) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """What the file says, and what a put names to replace just that."""
    try:
        got = store.get(key)
    except FileNotFoundError:
        return None, {}
    marks = {name: got.meta.get(name) for name in ("e_tag", "version")}
    return json.loads(bytes(got.bytes())), {name: mark for name, mark in marks.items() if isinstance(mark, str)}


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
    elif provider := _profile():
        options["credential_provider"] = provider
    return options


def _google(parts: SplitResult, endpoint: str | None) -> dict[str, Any]:
    if parts.username != _PUBLIC:
        return {"base_url": endpoint} if endpoint else {}
    nobody = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"service_account_key": json.dumps(nobody | ({"gcs_base_url": endpoint} if endpoint else {}))}


def _profile() -> Any:
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

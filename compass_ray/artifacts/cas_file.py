"""A small JSON file that changes: replaced in one step, and only while it still says what its writer had read.

Key property: of two processes that read the same and then both replace it, one does and the other is told so. On a local
disk a lock decides; on S3 and Cloud Storage the store itself (see `bucket`). Elsewhere the file is read once more before it
is put, which leaves the moment between the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.object_store import ConditionalObjectStore, supports_conditional_put, wrap_store_errors

_LOCKED_SECONDS = 30.0


class ConflictError(ArtifactError):
    """Another process replaced the file after it was read."""


class CompareAndSwapFile:
    """One such file of a run."""

    def __init__(self, files: Files, path: str, uri: str) -> None:
        """Point at ``path`` on the filesystem of ``files``, which ``uri`` reaches."""
        self._files = files
        self.path = path
        self._uri = uri

    def read(self) -> dict[str, Any] | None:
        """What it says, None where it is not there.

        Raises:
            ArtifactError: it is damaged, or the store refuses or fails.
        """
        try:
            return _decode(self._files.read(self.path), self.path)
        except FileNotFoundError:
            return None

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace it, whatever it says."""
        self._files.put(self.path, _encode(value))

    def compare_and_swap(self, value: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
        """Replace it while it still says what was found, None for not being there.

        Raises:
            LostRaceError: it says something else by now, which stays.
            ArtifactError: the store refuses or fails.
        """
        if self._files.local:
            self._replace_locked(value, found)
        elif supports_conditional_put(self._uri):
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
        with wrap_store_errors(self.path):
            store = ConditionalObjectStore(self._uri, self._files)
            data, mark = store.read(self.path)
            self._check(self._decode_optional(data), found)
            if not store.put(self.path, _encode(value), mark):
                now = self._decode_optional(store.read(self.path)[0])
                if now != json.loads(_encode(value)):  # else it is our own put, whose answer was lost
                    self._raise_conflict(now)

    def _decode_optional(self, data: bytes | None) -> dict[str, Any] | None:
        return None if data is None else _decode(data, self.path)

    def _check(self, said: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> None:
        if said != (None if found is None else json.loads(_encode(found))):
            self._raise_conflict(said)

    def _raise_conflict(self, said: Mapping[str, Any] | None) -> None:
        raise ConflictError(f"{self.path} was changed meanwhile by another process and says {json.dumps(said)[:200]} now")


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()


def _decode(data: bytes, path: str) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged and no JSON ({error}); write it again") from None
    if not isinstance(said, dict):
        raise ArtifactError(f"{path} is damaged: it holds {str(said)[:50]!r}, no JSON object; write it again")
    return said

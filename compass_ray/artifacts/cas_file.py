"""A small JSON file with compare-and-swap: it is replaced only if its content is still what the writer has read.

If two processes read the same content and both replace it, one succeeds and the other gets a `ConflictError`. A lock decides
on a local disk, the store itself on S3 and Cloud Storage (see `object_store`). On other stores the file is read again just
before the put; a change between that read and the put is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.object_store import ConditionalObjectStore, supports_conditional_put, wrap_store_errors
from compass_ray.artifacts.write_errors import explain_write_errors

_LOCK_TIMEOUT_S = 30.0


class ConflictError(ArtifactError):
    """Another process replaced the file after it was read."""


class CompareAndSwapFile:
    """One JSON file of a run that several processes may replace."""

    def __init__(self, files: Files, path: str, uri: str) -> None:
        """Reference ``path`` on the filesystem of ``files``; ``uri`` is the URI of that filesystem."""
        self._files = files
        self.path = path
        self._uri = uri

    def read(self) -> dict[str, Any] | None:
        """The content; None if the file does not exist.

        Raises:
            ArtifactError: the file is damaged, or the store refuses or fails.
        """
        try:
            return _decode(self._files.read(self.path), self.path)
        except FileNotFoundError:
            return None

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace the file unconditionally."""
        self._files.put(self.path, _encode(value))

    def compare_and_swap(self, value: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        """Replace the file if its content is ``expected``; None means that it does not exist.

        Raises:
            ConflictError: the content is another one, and is not replaced.
            ArtifactError: the store refuses or fails.
        """
        if self._files.local:
            self._replace_locked(value, expected)
        elif supports_conditional_put(self._uri):
            self._replace_remote(value, expected)
        else:
            self._replace_checked(value, expected)

    def _replace_checked(self, value: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        self._check(self.read(), expected)
        self.write(value)

    def _replace_locked(self, value: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        from filelock import FileLock, Timeout

        try:
            with explain_write_errors(self.path):
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{self.path}.lock", timeout=_LOCK_TIMEOUT_S):
                    self._replace_checked(value, expected)
        except Timeout:
            raise ArtifactError(f"{self.path}.lock is held by another process for {_LOCK_TIMEOUT_S:g} s; stop it") from None

    def _replace_remote(self, value: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        with wrap_store_errors(self.path):
            store = ConditionalObjectStore(self._uri, self._files)
            data, version = store.read(self.path)
            self._check(self._decode_optional(data), expected)
            if not store.put(self.path, _encode(value), version):
                current = self._decode_optional(store.read(self.path)[0])
                if current != json.loads(_encode(value)):  # equal: the put succeeded and only its response was lost
                    self._raise_conflict(current)

    def _decode_optional(self, data: bytes | None) -> dict[str, Any] | None:
        return None if data is None else _decode(data, self.path)

    def _check(self, current: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> None:
        if current != (None if expected is None else json.loads(_encode(expected))):
            self._raise_conflict(current)

    def _raise_conflict(self, current: Mapping[str, Any] | None) -> None:
        raise ConflictError(f"conflict: another process changed {self.path} to {json.dumps(current)[:200]}; read it and retry")


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()


def _decode(data: bytes, path: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is damaged: {str(value)[:50]!r} is not a JSON object; write it again")
    return value

"""Where a run lies: the filesystem behind a path or a URI.

Key property: what pyarrow's own URIs mean is what they mean here, so ``s3://`` and ``gs://`` take its query parameters
and the environment variables of their makers. Nothing is read or written.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from compass_ray.config import ConfigError

_AMAZON_ATTEMPTS = 3
_GOOGLE = ("gs", "gcs")
_GOOGLE_SECONDS = 20
"""Seconds in which its client tries by itself; its own limit is a quarter of an hour, without a word."""


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem, and the path of the run on it without a slash at its end.

    Raises:
        ConfigError: a URI that pyarrow cannot reach.
    """
    try:
        filesystem, path = pafs.FileSystem.from_uri(_with_retry_limit(uri))
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"--run {uri!r}: {error}; give a local path or a URI such as s3://bucket/run") from None
    return _with_backoff(filesystem), path.rstrip("/")


def _with_backoff(filesystem: pafs.FileSystem) -> pafs.FileSystem:
    """S3 with a client that waits longer each time; a URI has no word for it, so what the URI came to is taken over.

    Left alone the client repeats a failed request every 0.2 s for 6 s, 31 times where that was measured. It also asks three
    requests for each small file, of which one is enough.
    """
    if not isinstance(filesystem, pafs.S3FileSystem):
        return filesystem
    make, (options,) = filesystem.__reduce__()
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=_AMAZON_ATTEMPTS)
    return make({**options, "retry_strategy": retries, "allow_delayed_open": True})


def _with_retry_limit(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in _GOOGLE or "retry_limit_seconds" in parse_qs(parts.query):
        return uri
    return f"{uri}{'&' if parts.query else '?'}retry_limit_seconds={_GOOGLE_SECONDS}"

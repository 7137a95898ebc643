"""The filesystem behind the path or URI of a run.

URIs have pyarrow's meaning: ``s3://`` and ``gs://`` accept its query parameters and the providers' environment variables.
Nothing is read or written.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from compass_ray.config import ConfigError
from compass_ray.redaction import redact

_AMAZON_ATTEMPTS = 3
_GOOGLE = ("gs", "gcs")
_GOOGLE_SECONDS = 20
"""Seconds in which the Cloud Storage client retries; its default is 15 minutes without a message."""


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem, and the path of the run on it without a trailing slash.

    Raises:
        ConfigError: pyarrow does not support the URI.
    """
    try:
        filesystem, path = pafs.FileSystem.from_uri(_with_retry_limit(uri))
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"--run {redact(uri)!r}: {redact(error)}; give a local path or a URI such as s3://bucket/run") from None
    return _with_backoff(filesystem), path.rstrip("/")


def _with_backoff(filesystem: pafs.FileSystem) -> pafs.FileSystem:
    """S3 with exponential backoff. No URI parameter sets it, so the options that pyarrow read from the URI are reused.

    By default the client repeats a failed request every 0.2 s for 6 s (31 requests in a measurement). It also sends three
    requests per small file; delayed opening needs one.
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

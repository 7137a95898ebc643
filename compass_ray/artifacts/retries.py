"""Retries of object store requests, and user errors for requests that fail.

Only transient errors are retried, with random exponential waits, so that many workers do not retry at the same time. A
refusal or a missing object is reported at once with the remedy. The clients also retry for seconds (see `filesystem`); these
retries outlast an outage of half a minute.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.redaction import redact

Sleep = Callable[[float], None]
Result = TypeVar("Result")

ATTEMPTS = 6
MAX_WAIT_S = 30.0
"""Maximum seconds between two attempts."""
_FIRST_MAX_WAIT_S = 2.0
"""Maximum seconds before the second attempt; the maximum doubles each time, and the mean wait is half of it."""

# The patterns match error names at the positions where clients print them, so that no path matches.
_REFUSED = re.compile(
    r"AWS Error \w*(?:ACCESS|SIGNATURE|TOKEN|CLIENT|EXPIRED)\w* |ExceptionName: (?:ExpiredToken|InvalidToken)"
    r"|HTTP status 40[13]\b|Status\((?:PERMISSION_DENIED|UNAUTHENTICATED)|^PermissionDeniedError|^UnauthenticatedError|OAuth2"
)
_NO_BUCKET = re.compile(r"AWS Error NO_SUCH_BUCKET |^Bucket '.*' not found|Status\(NOT_FOUND|^NOT_FOUND|^\w*NotFoundError")
_BAD_REQUEST = re.compile(r"HTTP status 4(?!08|29)\d\d|Status\(INVALID_ARGUMENT")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later.

    >>> is_transient(OSError("AWS Error UNKNOWN (HTTP status 503) during UploadPart operation"))
    True
    >>> is_transient(OSError("AWS Error ACCESS_DENIED during HeadObject operation"))
    False
    >>> is_transient(FileNotFoundError(2, "Path does not exist"))
    False
    """
    if not isinstance(error, OSError) or error.errno is not None:
        return False
    return not any(pattern.search(str(error)) for pattern in (_REFUSED, _NO_BUCKET, _BAD_REQUEST))


def retry(work: Callable[[], Result], path: str, sleep: Sleep = time.sleep) -> Result:
    """Result of ``work``, which is retried while its errors are transient; ``work`` must be idempotent.

    Raises:
        FileNotFoundError: the file does not exist.
        ArtifactError: the store refuses, or still fails at the last attempt.
    """
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=_FIRST_MAX_WAIT_S, max=MAX_WAIT_S),
        retry=retry_if_exception(is_transient),
        sleep=sleep,
        reraise=True,
    )
    try:
        return attempts(work)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise to_user_error(error, path) from None


def to_user_error(error: OSError, path: str) -> ArtifactError:
    """A store's error as an error for users: what failed and what to do."""
    reason = redact(error).strip().splitlines()[0]
    if _REFUSED.search(reason):
        return ArtifactError(
            f"{path}: the store refused the request ({reason}). Credentials are missing or lack the permission: set "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://), GOOGLE_APPLICATION_CREDENTIALS (gs://), or give "
            f"every node a role"
        )
    if _NO_BUCKET.search(reason):
        return ArtifactError(f"{path}: bucket {path.partition('/')[0]!r} does not exist ({reason}); create it or correct --run")
    tries = f" in {ATTEMPTS} attempts" if is_transient(error) else ""
    return ArtifactError(
        f"{path}: the store failed{tries} ({reason}); check that it is reachable, then run again: complete artifacts are reused"
    )

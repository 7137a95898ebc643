"""What is tried again when a store does not answer, and what is told when it never does.

Key property: only what may pass by itself is tried again, with waits that grow and are drawn at random, so that many
workers do not come back at once; what a store refuses, or says is not there, is told at once with the remedy. The
clients below repeat a request too (see `reaching`), for seconds; these attempts outlast an outage of half a minute. It knows
no filesystem.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from compass_ray.artifacts.errors import ArtifactError

Sleep = Callable[[float], None]
Result = TypeVar("Result")

ATTEMPTS = 6
LONGEST_WAIT = 30.0
"""Seconds at most between two attempts."""
_FIRST_WAIT = 2.0
"""Seconds at most before the second attempt; the most doubles each time, and half of it is waited on average."""

# Names of errors where the clients put them, so that no path is taken for one.
_REFUSED = re.compile(
    r"AWS Error \w*(?:ACCESS|SIGNATURE|TOKEN|CLIENT|EXPIRED)\w* |ExceptionName: (?:ExpiredToken|InvalidToken)"
    r"|HTTP status 40[13]\b|Status\((?:PERMISSION_DENIED|UNAUTHENTICATED)|^PermissionDeniedError|^UnauthenticatedError|OAuth2"
)
_NO_BUCKET = re.compile(r"AWS Error NO_SUCH_BUCKET |^Bucket '.*' not found|Status\(NOT_FOUND|^NOT_FOUND|^\w*NotFoundError")
_WRONG = re.compile(r"HTTP status 4(?!08|29)\d\d|Status\(INVALID_ARGUMENT")


def is_transient(error: BaseException) -> bool:
    """Whether the same may well succeed a little later.

    >>> is_transient(OSError("AWS Error UNKNOWN (HTTP status 503) during UploadPart operation"))
    True
    >>> is_transient(OSError("AWS Error ACCESS_DENIED during HeadObject operation"))
    False
    >>> is_transient(FileNotFoundError(2, "Path does not exist"))
    False
    """
    if not isinstance(error, OSError) or error.errno is not None:
        return False
    return not any(pattern.search(str(error)) for pattern in (_REFUSED, _NO_BUCKET, _WRONG))


def retry(work: Callable[[], Result], path: str, sleep: Sleep = time.sleep) -> Result:
    """What ``work`` returns, tried again as long as its errors may pass; it must do no harm when it is done twice.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: the store refuses, or still fails at the last attempt.
    """
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=LONGEST_WAIT),
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
    """A store's error for users: what failed, and what to do."""
    reason = str(error).strip().splitlines()[0]
    if _REFUSED.search(reason):
        return ArtifactError(
            f"{path}: the store refuses ({reason}). The credentials may not do this, or none were found: set "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://), GOOGLE_APPLICATION_CREDENTIALS (gs://), or give the "
            f"machine a role, on every node"
        )
    if _NO_BUCKET.search(reason):
        return ArtifactError(f"{path}: there is no bucket {path.partition('/')[0]!r} ({reason}); make it, or correct --run")
    tries = f" in {ATTEMPTS} attempts" if is_transient(error) else ""
    return ArtifactError(
        f"{path}: the store failed{tries} ({reason}); check that it can be reached, then run again: finished artefacts are kept"
    )

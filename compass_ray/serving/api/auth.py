"""API keys: which requests have one.

The process holds hashes and no key, and comparison takes constant time. Without a key source, no key is needed. The keys can be
replaced while the service runs. Sources: `key_source`. Rate limits: `rate_limits`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

from compass_ray.config import ConfigError
from compass_ray.serving.api.key_source import ID_LENGTH, hash_key, read_key_file

logger = logging.getLogger(__name__)


class ApiKeys:
    """The accepted keys. Without any at the start, no key is needed."""

    def __init__(self, digests: Mapping[str, str] | None = None) -> None:
        """``digests`` maps the SHA-256 of each key, in lower-case hexadecimal, to the key's name."""
        self.digests = dict(digests or {})
        self.required = bool(self.digests)
        """Whether a request needs a key. Never changes, so a file whose last key is removed refuses everybody."""

    def replace(self, digests: Mapping[str, str]) -> None:
        """Accept these keys from now on, and no others."""
        self.digests = dict(digests)

    def find_id(self, authorization: str | None) -> str | None:
        """The first digits of the hash of an accepted key; None without one.

        ``authorization`` is the header of that name: a bearer token, or the password of basic authentication.
        """
        key = _extract_key(authorization or "")
        if not key:
            return None
        digest_of_key, found = hash_key(key), None
        for digest in self.digests:  # compare with all, so that the time reveals nothing
            if hmac.compare_digest(digest, digest_of_key):
                found = digest[:ID_LENGTH]
        return found


class KeyReloader:
    """Re-reads the file of the keys, so that new and revoked keys need no restart."""

    def __init__(self, keys: ApiKeys, file: Path) -> None:
        """Keep ``keys`` equal to those of ``file``."""
        self.keys = keys
        self.file = file
        self.problem: str | None = None
        """Why the file was not used at the last call."""

    def reload(self) -> None:
        """Accept the file's present keys. If the file is invalid, the previous keys stay; each new reason is logged once."""
        try:
            digests = read_key_file(self.file)
        except ConfigError as error:
            if self.problem != str(error):
                logger.error("ingress: the previous API keys stay in use: %s", error)
            self.problem = str(error)
            return
        self.problem = None
        before, now = self.keys.digests.keys(), digests.keys()
        if before != now:
            logger.warning("ingress: API keys reloaded, %d added, %d revoked", len(now - before), len(before - now))
        self.keys.replace(digests)


def _extract_key(authorization: str) -> str:
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""

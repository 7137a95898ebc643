"""API keys, stored as the SHA-256 hash of each key.

Neither the file nor the process holds a key itself, and comparison takes constant time. Without a key source, no key is needed.
A key source without keys is an error. Rate limits are in `rate_limits`.

One key per line (or between commas), as 64 hexadecimal digits or ``name:digits``; ``#`` starts a comment. To make a line for
the key ``K``: ``printf %s "$K" | sha256sum``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from compass_ray.config import API_KEYS_VARIABLE, ConfigError

ENVIRONMENT_VARIABLE = API_KEYS_VARIABLE
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_ID_LENGTH = 12


def hash_key(key: str) -> str:
    """The hexadecimal SHA-256 of a key, as in a key source.

    >>> hash_key("secret")[:8]
    '2bb80d53'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class KeyOwner:
    """The owner of an API key: the key's name, and the first digits of its hash."""

    name: str
    id: str


class ApiKeys:
    """The accepted keys. Empty means that no key is needed."""

    def __init__(self, digests: Mapping[str, str] | None = None) -> None:
        """``digests`` maps the SHA-256 of each key, in lower-case hexadecimal, to the key's name."""
        self.digests = dict(digests or {})

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self.digests)

    def find_owner(self, authorization: str | None) -> KeyOwner | None:
        """The owner of the key in an ``Authorization`` header: a bearer token, or the password of basic authentication."""
        key = _extract_key(authorization or "")
        if not key:
            return None
        digest_of_key, owner = hash_key(key), None
        for digest, name in self.digests.items():  # compare with all, so that the time reveals nothing
            if hmac.compare_digest(digest, digest_of_key):
                owner = KeyOwner(name, digest[:_ID_LENGTH])
        return owner

    @classmethod
    def load(cls, environment: Mapping[str, str], file: str | Path | None = None) -> ApiKeys:
        """The keys of ``COMPASS_API_KEYS`` if set, otherwise of the file if given, otherwise none.

        Raises:
            ConfigError: the file cannot be read, a line is no hash, or the source has no key.
        """
        if ENVIRONMENT_VARIABLE in environment:
            return cls._parse(re.split(r"[\n,]", environment[ENVIRONMENT_VARIABLE]), ENVIRONMENT_VARIABLE)
        if file is None:
            return cls()
        try:
            return cls._parse(Path(file).read_text("utf-8").splitlines(), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"serve.api_keys: {file} cannot be read ({error}). Name a file of hashed keys.") from None

    @classmethod
    def _parse(cls, lines: Iterable[str], source: str) -> ApiKeys:
        digests = {}
        for number, line in enumerate(lines, 1):
            name, _, digest = line.partition("#")[0].strip().rpartition(":")
            if not digest:
                continue
            if not _DIGEST.fullmatch(digest):  # not shown, because it may be a plain key
                raise ConfigError(
                    f"{source}, entry {number}: expected the SHA-256 of a key as 64 hexadecimal digits, or name:digits."
                )
            digests[digest.lower()] = name or digest[:_ID_LENGTH].lower()
        if not digests:
            raise ConfigError(f"{source} has no key, so every request would be refused. Add one, or unset it to need no key.")
        return cls(digests)


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

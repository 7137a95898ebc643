"""API keys: who may ask, known by the SHA-256 of each key.

Key property: neither the file nor the process holds a key itself, and comparing takes as long for a wrong one as for a right
one. No keys at all means that anybody may ask; a source of keys that holds none is an error, never that. COMPASS has no
section on it. Not here: how often a key may ask (`limits`).

One key a line (or between commas), as 64 hexadecimal digits or ``name:digits``; ``#`` begins a remark. A line for the key ``K``:
``printf %s "$K" | sha256sum``.
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

from compass_ray.config import ConfigError

ENVIRONMENT_VARIABLE = "COMPASS_API_KEYS"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_ID_LENGTH = 12


def hash_key(key: str) -> str:
    """The SHA-256 of a key in hexadecimal, as a source of keys has it.

    >>> hash_key("secret")[:8]
    '2bb80d53'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class KeyOwner:
    """Who sent a request: the name given to the key, and the first digits of its hash."""

    name: str
    id: str


class ApiKeys:
    """The keys that are known; none means that anybody may ask."""

    def __init__(self, digests: Mapping[str, str] | None = None) -> None:
        """Know keys by ``digests``: SHA-256 in lower-case hexadecimal to the key's name."""
        self.digests = dict(digests or {})

    @property
    def required(self) -> bool:
        """Whether a request must carry one."""
        return bool(self.digests)

    def find_owner(self, authorization: str | None) -> KeyOwner | None:
        """Whose key an ``Authorization`` header holds, as a bearer token or as the password of basic authentication."""
        key = _extract_key(authorization or "")
        if not key:
            return None
        given, found = hash_key(key), None
        for digest, name in self.digests.items():  # all of them, so that the time says nothing
            if hmac.compare_digest(digest, given):
                found = KeyOwner(name, digest[:_ID_LENGTH])
        return found

    @classmethod
    def load(cls, environment: Mapping[str, str], file: str | Path | None = None) -> ApiKeys:
        """The keys of ``COMPASS_API_KEYS`` where it is set, else of the file where one is named, else none.

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
            raise ConfigError(f"serve.api_keys: {file} cannot be read ({error}); name a file of hashed keys") from None

    @classmethod
    def _parse(cls, lines: Iterable[str], source: str) -> ApiKeys:
        digests = {}
        for number, line in enumerate(lines, 1):
            name, _, digest = line.partition("#")[0].strip().rpartition(":")
            if not digest:
                continue
            if not _DIGEST.fullmatch(digest):  # it may be a key by mistake, so it is not shown
                raise ConfigError(
                    f"{source}, entry {number}: expected the SHA-256 of a key, 64 hexadecimal digits, or name:digits"
                )
            digests[digest.lower()] = name or digest[:_ID_LENGTH].lower()
        if not digests:
            raise ConfigError(f"{source} holds no key, so nobody could ask; add one, or unset it to let anybody ask")
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

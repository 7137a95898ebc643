"""Sources of hashed API keys: the environment variable ``COMPASS_API_KEYS``, or the file of ``serve.api_keys``.

A line has one key or several between commas, each as 64 hexadecimal digits or ``name:digits``; ``#`` starts a comment. An entry
that is not complete is an error with its line, so no key is skipped. To make an entry for the key ``K``:
``printf %s "$K" | sha256sum | cut -c -64``. `auth` compares keys.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from compass_ray.config import API_KEYS_VARIABLE, ConfigError
from compass_ray.redaction import redact

ENVIRONMENT_VARIABLE = API_KEYS_VARIABLE
ID_LENGTH = 12
"""Number of digits of a hash that identify its key in logs and windows."""
_ENTRY = re.compile(r"(?:(?P<name>[^:]*):)?\s*(?P<digest>[0-9a-fA-F]{64})")
_FORMAT = "Expected the SHA-256 of a key as 64 hexadecimal digits, or name:digits."


def hash_key(key: str) -> str:
    """The hexadecimal SHA-256 of a key, as in a key source.

    >>> hash_key("secret")[:8]
    '2bb80d53'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def find_key_file(environment: Mapping[str, str], file: str | None) -> Path | None:
    """The absolute path of the file with the keys; None if there is none, or if the environment variable replaces it.

    Raises:
        ConfigError: the file is a URI.
    """
    if file is None or ENVIRONMENT_VARIABLE in environment:
        return None
    if "://" in file:
        raise ConfigError(f"serve.api_keys: {redact(file)} is a URI. Copy the file to this machine, and give its path.")
    return Path(file).expanduser().absolute()


def read_keys(environment: Mapping[str, str], file: str | None = None) -> dict[str, str]:
    """The name of each key by the lower-case hash of the key; empty without a source.

    Raises:
        ConfigError: the file cannot be read, an entry is invalid, or the source has no key.
    """
    source = find_key_file(environment, file)
    if source is None and ENVIRONMENT_VARIABLE not in environment:
        return {}
    keys = read_key_file(source) if source else _parse(environment[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE)
    if not keys:
        name = source or ENVIRONMENT_VARIABLE
        raise ConfigError(f"{name} has no key, so every request would be refused. Add one, or unset it to need no key.")
    return keys


def read_key_file(file: Path) -> dict[str, str]:
    """The name of each key of a file by the lower-case hash of the key.

    Raises:
        ConfigError: the file cannot be read, or an entry is invalid.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is not UTF-8"
        raise ConfigError(f"serve.api_keys: {file} cannot be read ({reason}). Name a file of hashed keys.") from None
    return _parse(text, str(file))


def _parse(text: str, source: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for number, entry in _split_entries(text):
        found = _ENTRY.fullmatch(entry)
        if not found:  # the entry is not shown, because it may be a plain key
            raise ConfigError(f"{source}, line {number}: an entry is no hashed key. {_FORMAT}")
        digest = found["digest"].lower()
        if digest == hash_key(""):
            raise ConfigError(f"{source}, line {number}: this is the hash of an empty key. Hash the key itself: was $KEY set?")
        if digest in keys:
            raise ConfigError(f"{source}, line {number}: the key {digest[:ID_LENGTH]} is there twice. Remove one entry.")
        keys[digest] = (found["name"] or "").strip() or digest[:ID_LENGTH]
    return keys


def _split_entries(text: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each entry that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        for entry in line.partition("#")[0].split(","):
            if stripped := entry.strip():
                yield number, stripped

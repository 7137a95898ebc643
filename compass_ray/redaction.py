"""Removal of credentials from texts that are shown or recorded.

A URI may carry credentials: user and password before the host, or keys, tokens and signatures in its query. `redact` replaces
them and leaves the rest. It is idempotent, and a text without credentials does not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

HIDDEN = "***"

_SCHEME = r"(?P<scheme>\b{which}[a-z][a-z0-9+.-]{{0,20}}:/{{1,2}})"
_HTTP, _OTHER = (_SCHEME.format(which=which) for which in (r"(?=https?:)", r"(?!https?:)"))
_NO_PORT = r"(?!\d{1,5}(?:[/?\s'\"]|$))"
_USER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A password may contain a slash that was not percent-encoded, but a port is no password. A path has one slash of two.
        rf"{_HTTP}(?:[^\s/'\"<>]{{0,2048}}|[^\s/@:'\"<>]{{0,512}}:{_NO_PORT}[^\s'\"<>?]{{0,512}})@",
        # A bucket has no port.
        rf"{_OTHER}(?:[^\s/'\"<>]{{0,2048}}|[^\s/@:'\"<>]{{0,512}}:[^\s'\"<>?]{{0,512}})@",
        # A password may also contain spaces and quotes. It ends at the first @, or at the last one before a space or a slash.
        rf"{_OTHER}[^\s/@:'\"<>]{{1,512}}:(?!\s){_NO_PORT}[^\n@]{{0,512}}@(?:[^\s/'\"<>]{{0,512}}@)?",
        rf"{_HTTP}[^\s/@:'\"<>]{{1,512}}:(?!\s){_NO_PORT}[^\n@/?]{{0,512}}@(?:[^\s/'\"<>]{{0,512}}@)?",
    )
)
_QUERY = re.compile(
    r"(?P<name>[?&;](?:[\w.-]{0,60}(?:signature|credential|token|secret|passw|api[_-]?key|access[_-]?key|keyid)[\w.-]{0,60}"
    r"|sig|key|auth)=)[^&;\s'\"<>#]+",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\b(?P<kind>hf_)[A-Za-z0-9]{30,}|(?P<bearer>\bBearer )[\w.~+/=-]{8,}")
"""A token of the hub has 34 characters after its prefix; names of folders and models are shorter."""


def redact(text: object) -> str:
    """The text with every credential of a URI, and every Hugging Face or bearer token, replaced by three asterisks.

    >>> redact("s3://AKIA1:secret@bucket/run?region=eu-1")
    's3://***@bucket/run?region=eu-1'
    >>> redact("https://host/run?X-Amz-Signature=12ab&part=1")
    'https://host/run?X-Amz-Signature=***&part=1'
    >>> redact("http://127.0.0.1:8000/v1/models/sw@v0001")
    'http://127.0.0.1:8000/v1/models/sw@v0001'
    """
    shown = str(text)
    # Each pattern is skipped without the characters that it needs; its bounds keep the time linear otherwise.
    if ":/" in shown and "@" in shown:
        for pattern in _USER:
            shown = pattern.sub(rf"\g<scheme>{HIDDEN}@", shown)
    if "=" in shown:
        shown = _QUERY.sub(rf"\g<name>{HIDDEN}", shown)
    if "hf_" in shown or "Bearer " in shown:
        shown = _TOKEN.sub(lambda found: f"{found['kind'] or found['bearer']}{HIDDEN}", shown)
    return shown


def redact_tree(value: Any) -> Any:
    """Plain JSON data with every text redacted, keys included."""
    return _map_texts(value, redact)


def redact_uris(value: Any) -> Any:
    """Plain JSON data with every text that has a URI redacted. A local path stays as it is, so that it can be opened again."""
    return _map_texts(value, lambda text: redact(text) if "://" in text else text)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_texts(key, change): _map_texts(below, change) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(each, change) for each in value]
    return value

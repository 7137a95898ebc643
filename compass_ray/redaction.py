"""Removal of credentials from texts that are shown or recorded.

A URI may carry credentials: user and password before the host, or keys, tokens and signatures in its query. `redact` replaces
them and leaves the rest. It is idempotent, and a text without credentials does not change.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

# A password may contain a slash that was not percent-encoded, but a port is no password. A path has one slash of two.
_USER = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*:/{1,2})(?:[^\s/'\"<>]*|[^\s/@:'\"<>]*:(?!\d+(?:[/?]|$))[^\s'\"<>?]*)@", re.IGNORECASE
)
_QUERY = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?:signature|credential|token|secret|passw|api[_-]?key|access[_-]?key|keyid)[\w.-]*|sig|key|auth)=)"
    r"[^&;\s'\"<>#]+",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\b(?P<kind>hf_)[A-Za-z0-9]{12,}|(?P<bearer>\bBearer )[\w.~+/=-]{8,}")


def redact(text: object) -> str:
    """The text with every credential of a URI, and every Hugging Face or bearer token, replaced by three asterisks.

    >>> redact("s3://AKIA1:secret@bucket/run?region=eu-1")
    's3://***@bucket/run?region=eu-1'
    >>> redact("https://host/run?X-Amz-Signature=12ab&part=1")
    'https://host/run?X-Amz-Signature=***&part=1'
    >>> redact("http://127.0.0.1:8000/v1/models/sw@v0001")
    'http://127.0.0.1:8000/v1/models/sw@v0001'
    """
    shown = _USER.sub(rf"\g<scheme>{HIDDEN}@", str(text))
    shown = _QUERY.sub(rf"\g<name>{HIDDEN}", shown)
    return _TOKEN.sub(lambda found: f"{found['kind'] or found['bearer']}{HIDDEN}", shown)


def redact_tree(value: Any) -> Any:
    """Plain JSON data with every text redacted, keys included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_tree(key): redact_tree(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [redact_tree(each) for each in value]
    return value

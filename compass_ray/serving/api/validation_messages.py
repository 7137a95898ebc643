"""What a client is told of a field that does not fit: one plain sentence, with the field first and the way on last.

Key property: a field that cannot be honoured has a sentence of its own, whatever was sent; every other one is told by how it
fails. Nothing of what was sent is repeated. Not here: which fields there are (`schema`). COMPASS has no section on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_JSON = "the body is not JSON; send one JSON object in UTF-8"
_NOT_AN_OBJECT = "the body is not a JSON object; send one, in braces"
_UNSUPPORTED: Mapping[str, str] = {
    "tools": "tools are not supported here; leave them out",
    "functions": "functions are not supported here; leave them out",
    "n": "n is 1 here: a reply has one choice; send the request again for another",
    "best_of": "best_of is 1 here: a reply has one choice; leave it out",
    "presence_penalty": "presence_penalty is not supported here; leave it out, or send 0",
    "frequency_penalty": "frequency_penalty is not supported here; leave it out, or send 0",
    "logit_bias": "logit_bias is not supported here; leave it out",
    "echo": "echo is not supported here; leave it out, or send false",
    "suffix": "suffix is not supported here; leave it out",
    "response_format": "only text is a format of replies here; leave it out",
}
"""By the first part of a field's place."""
_FAILURES: Mapping[str, str] = {
    "missing": "is missing",
    "too_long": "has too many entries; {max_length} is the most",
    "too_short": "has too few entries; {min_length} is the least",
    "string_too_long": "is too long; {max_length} characters are the most",
    "string_too_short": "is too short; {min_length} is the least number of characters",
    "string_unicode": "is not Unicode text",
    "string_pattern_mismatch": "does not look as it should; expected {pattern}",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
"""By pydantic's name of the failure."""


def describe_validation_error(where: str | None, problem: Mapping[str, Any]) -> str:
    """The sentence for one of pydantic's problems at a place such as ``messages.0.role``; None is the whole body."""
    if where is None:
        return _NOT_AN_OBJECT
    kind, (first, *rest) = problem["type"], where.split(".")
    if first in _UNSUPPORTED:
        own = _UNSUPPORTED[first]
        return own if own.startswith(where) else f"{where}: {own}"
    if first == "messages" and rest[-1:] == ["type"]:
        return f"{where} must be 'text': nothing else is read here"
    if kind in _FAILURES:
        return f"{where} {_FAILURES[kind].format(**problem.get('ctx', {}))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return f"{where} must be {message.removeprefix('Input should be ')}"
    return f"{where}: {message}"

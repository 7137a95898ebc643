"""Turn the error of a Ray worker into a message for users."""

from __future__ import annotations

import re

_THEN = "The above exception was the direct cause of the following exception:"
_OWN = re.compile(r"^compass_ray(?:\.\w+)+Error: ", re.MULTILINE)
"""Errors of this package inside Ray's wrappers."""
_FRAMES = re.compile(r'.*\n\s+File "[^\n]*\n(?:[ \t]+[^\n]*(?:\n|$))*', re.DOTALL)
_CLASS = re.compile(r"^[\w.]+(?:Error|Exception): ")


def user_message(error: BaseException) -> str:
    """The message of a worker's error, without the stack frames and the class name that Ray adds."""
    text = str(error).strip()
    cause = text.partition(_THEN)[0].strip()
    if _OWN.search(cause):  # Ray Data adds only noise
        text = cause
    message = _FRAMES.sub("", text)
    return text if message in ("", text) else _CLASS.sub("", message)

"""A worker's error as a user should read it."""

from __future__ import annotations

import re

_THEN = "The above exception was the direct cause of the following exception:"
_OWN = re.compile(r"^compass_ray(?:\.\w+)+Error: ", re.MULTILINE)
"""This package's own errors, in whatever Ray has wrapped them."""
_FRAMES = re.compile(r'.*\n\s+File "[^\n]*\n(?:[ \t]+[^\n]*(?:\n|$))*', re.DOTALL)
_CLASS = re.compile(r"^[\w.]+(?:Error|Exception): ")


def user_message(error: BaseException) -> str:
    """What a worker's error says, without the frames and the class name that Ray puts before it."""
    text = str(error).strip()
    first = text.partition(_THEN)[0].strip()
    if _OWN.search(first):  # what Ray Data adds to it says nothing more
        text = first
    message = _FRAMES.sub("", text)
    return text if message in ("", text) else _CLASS.sub("", message)

"""Turn the error of a Ray worker into a message for users."""

from __future__ import annotations

import re

_THEN = "The above exception was the direct cause of the following exception:"
_OWN = re.compile(r"^compass_ray(?:\.\w+)+Error: ", re.MULTILINE)
"""Errors of this package inside Ray's wrappers."""
_FRAMES = re.compile(r'.*\n\s+File "[^\n]*\n(?:[ \t]+[^\n]*(?:\n|$))*', re.DOTALL)
_CLASS = re.compile(r"^[\w.]+(?:Error|Exception): ")
_WORKER_USED = re.compile(r"actual memory used=([\d.]+)GB")
_MACHINE_USED = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")
"""What Ray says of a worker that it ended before the system would."""
_SYSTEM_KILL = (
    "worker process has died",
    "The actor was restarted",
    "worker died unexpectedly",
)
_REMEDY = (
    "run fewer workers at once, or lower the setting of the step: train.micro_batch_tokens, evaluate.batch_tokens, "
    "evaluate.harness.batch_size (eval) or resources.embed_batch_tokens"
)


def user_message(error: BaseException) -> str:
    """The message of a worker's error, without the stack frames and the class name that Ray adds.

    A worker that was killed left none: the message says for what reason the system does that.
    """
    text = str(error).strip()
    if "running low on memory" in text:
        return _describe_ray_kill(text)
    if any(sign in text for sign in _SYSTEM_KILL) and not _OWN.search(text):
        return (
            "a worker process ended without an error message. The system ends one so if memory runs out (see 'dmesg'): "
            f"{_REMEDY}; compass-ray doctor estimates the memory"
        )
    cause = text.partition(_THEN)[0].strip()
    if _OWN.search(cause):  # Ray Data adds only noise
        text = cause
    message = _FRAMES.sub("", text)
    return text if message in ("", text) else _CLASS.sub("", message)


def _describe_ray_kill(text: str) -> str:
    worker, machine = _WORKER_USED.search(text), _MACHINE_USED.search(text)
    used = f"; the worker used {worker[1]} GB" if worker else ""
    used += f"; the machine used {machine[1]} of {machine[2]} GB" if machine else ""
    return f"Ray ended a worker because its machine ran out of memory{used}; {_REMEDY}"

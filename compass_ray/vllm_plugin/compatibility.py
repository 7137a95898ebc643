"""Whether the installed vLLM is one that the plugin knows: version, and name and parameters of every function that it wraps.

Nothing here changes vLLM. A difference is described, and the caller then leaves vLLM as it is.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TESTED_VERSIONS = ("0.32",)
"""Minor versions of vLLM whose complete tests pass (`make test-vllm`)."""
UNTESTED_VARIABLE = "COMPASS_DORA_UNTESTED_VLLM"
"""Set to 1, the plugin also installs itself in other versions, if all functions are as expected."""


@dataclass(frozen=True)
class ExpectedFunction:
    """A function of vLLM and the names of its parameters."""

    owner: str
    """Module, or module and class: ``vllm.lora.peft_helper:PEFTHelper``."""
    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class ExpectedNames:
    """Names that the body of a function uses, such as attributes that a constructor sets."""

    owner: str
    name: str
    uses: tuple[str, ...]


def find_problems(functions: Iterable[ExpectedFunction], names: Iterable[ExpectedNames]) -> list[str]:
    """Differences from what is expected, one sentence each; empty if there is none."""
    found = [_check_function(expected) for expected in functions] + [_check_names(expected) for expected in names]
    return [problem for problem in found if problem]


def check_version(version: str) -> str | None:
    """A sentence if this version of vLLM was not tested and the user did not allow untested ones."""
    minor = ".".join(version.split(".")[:2])
    if minor in TESTED_VERSIONS or os.environ.get(UNTESTED_VARIABLE) == "1":
        return None
    tested = ", ".join(TESTED_VERSIONS)
    return f"vLLM {version} is not one of the tested versions ({tested}). {UNTESTED_VARIABLE}=1 overrides this check."


def resolve(owner: str) -> Any:
    """The module or class with this name.

    Raises:
        ImportError, AttributeError: it does not exist.
    """
    module, _, name = owner.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def find_function(owner: str, name: str) -> Any:
    """The plain function behind an attribute, also of a class method.

    Raises:
        ImportError, AttributeError: it does not exist.
    """
    found = inspect.getattr_static(resolve(owner), name)
    return found.__func__ if isinstance(found, (classmethod, staticmethod)) else found


def _check_function(expected: ExpectedFunction) -> str | None:
    label = f"{expected.owner}.{expected.name}"
    try:
        found = tuple(inspect.signature(find_function(expected.owner, expected.name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{label} is missing ({error})."
    if found != expected.parameters:
        return f"{label} has the parameters {', '.join(found)} instead of {', '.join(expected.parameters)}."
    return None


def _check_names(expected: ExpectedNames) -> str | None:
    label = f"{expected.owner}.{expected.name}"
    try:
        used = set(find_function(expected.owner, expected.name).__code__.co_names)
    except (ImportError, AttributeError) as error:
        return f"{label} is missing ({error})."
    missing = [name for name in expected.uses if name not in used]
    return f"{label} does not use {', '.join(missing)}." if missing else None

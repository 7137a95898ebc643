"""Versions that are installed, against those that the package needs and those that it is tested with.

Key property: what it needs stops a run, what it is tested with is told. The tested versions are known in a checkout only.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from compass_ray.preflight.findings import Asked, Finding

_OURS = "compass-ray"
_TOLD = ("ray", "torch", "transformers", "sentence-transformers", "pyarrow", "datasets")
_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def check_versions(asked: Asked) -> list[Finding]:
    """Python and the packages that matter most; what is missing or too old stops a run."""
    if lacking := list(_lacking()):
        return [Finding("versions", "; ".join(lacking), "pip install -c constraints.txt -e .", blocking=True)]
    found = {name: importlib.metadata.version(name) for name in _TOLD}
    told = ", ".join(f"{name} {version}" for name, version in {"Python": platform.python_version(), **found}.items())
    if others := _untested(found):
        return [Finding("versions", f"{told}; tested with {', '.join(others)}", "pip install -c constraints.txt -e .")]
    return [Finding("versions", told)]


def _lacking() -> Iterator[str]:
    """What the package's own metadata asks for and this environment does not have."""
    python = importlib.metadata.metadata(_OURS)["Requires-Python"] or ""
    if not SpecifierSet(python).contains(platform.python_version()):
        yield f"Python {platform.python_version()} is installed, {_OURS} needs {python}"
    for line in importlib.metadata.requires(_OURS) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _unmet(requirement)


def _unmet(requirement: Requirement) -> Iterator[str]:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield f"{requirement.name} is not installed, {_OURS} needs {requirement.specifier or 'it'}"
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requirement.name} {version} is installed, {_OURS} needs {requirement.specifier}"


def _untested(found: Mapping[str, str]) -> list[str]:
    pinned = dict(line.split("==") for line in _pins())
    return [f"{name} {pinned[name]}" for name, version in found.items() if pinned.get(name, version) != version.split("+")[0]]


def _pins() -> list[str]:
    if not _CONSTRAINTS.is_file():
        return []
    return [line.strip() for line in _CONSTRAINTS.read_text("utf-8").splitlines() if line.count("==") == 1 and line[0] != "#"]

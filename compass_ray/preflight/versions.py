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

from compass_ray.preflight.check_result import CheckContext, CheckResult

_PACKAGE = "compass-ray"
_REPORTED_PACKAGES = ("ray", "torch", "transformers", "sentence-transformers", "pyarrow", "datasets")
_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def check_versions(asked: CheckContext) -> list[CheckResult]:
    """Python and the packages that matter most; what is missing or too old stops a run."""
    if lacking := list(_list_unmet()):
        return [CheckResult("versions", "; ".join(lacking), "pip install -c constraints.txt -e .", blocking=True)]
    found = {name: importlib.metadata.version(name) for name in _REPORTED_PACKAGES}
    told = ", ".join(f"{name} {version}" for name, version in {"Python": platform.python_version(), **found}.items())
    if others := _untested(found):
        return [CheckResult("versions", f"{told}; tested with {', '.join(others)}", "pip install -c constraints.txt -e .")]
    return [CheckResult("versions", told)]


def _list_unmet() -> Iterator[str]:
    """What the package's own metadata asks for and this environment does not have."""
    python = importlib.metadata.metadata(_PACKAGE)["Requires-Python"] or ""
    if not SpecifierSet(python).contains(platform.python_version()):
        yield f"Python {platform.python_version()} is installed, {_PACKAGE} needs {python}"
    for line in importlib.metadata.requires(_PACKAGE) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _unmet(requirement)


def _unmet(requirement: Requirement) -> Iterator[str]:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield f"{requirement.name} is not installed, {_PACKAGE} needs {requirement.specifier or 'it'}"
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requirement.name} {version} is installed, {_PACKAGE} needs {requirement.specifier}"


def _untested(found: Mapping[str, str]) -> list[str]:
    pinned = dict(line.split("==") for line in _pins())
    return [f"{name} {pinned[name]}" for name, version in found.items() if pinned.get(name, version) != version.split("+")[0]]


def _pins() -> list[str]:
    if not _CONSTRAINTS.is_file():
        return []
    return [line.strip() for line in _CONSTRAINTS.read_text("utf-8").splitlines() if line.count("==") == 1 and line[0] != "#"]

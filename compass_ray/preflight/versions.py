"""Compare installed versions with the versions that the package requires, and with those that it is tested with.

Key property: an unmet requirement blocks a run, an untested version is only reported. Tested versions are known only in a
source checkout.
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


def check_versions(context: CheckContext) -> list[CheckResult]:
    """Check Python and the required packages. A missing or too old one blocks a run."""
    if unmet := list(_list_unmet()):
        return [CheckResult("versions", "; ".join(unmet), "pip install -c constraints.txt -e .", blocking=True)]
    installed = {name: importlib.metadata.version(name) for name in _REPORTED_PACKAGES}
    found = ", ".join(f"{name} {version}" for name, version in {"Python": platform.python_version(), **installed}.items())
    if others := _untested(installed):
        return [CheckResult("versions", f"{found}; tested with {', '.join(others)}", "pip install -c constraints.txt -e .")]
    return [CheckResult("versions", found)]


def _list_unmet() -> Iterator[str]:
    """Requirements of the package's metadata that this environment does not meet."""
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


def _untested(installed: Mapping[str, str]) -> list[str]:
    pinned = dict(line.split("==") for line in _pins())
    return [f"{name} {pinned[name]}" for name, version in installed.items() if pinned.get(name, version) != version.split("+")[0]]


def _pins() -> list[str]:
    if not _CONSTRAINTS.is_file():
        return []
    return [line.strip() for line in _CONSTRAINTS.read_text("utf-8").splitlines() if line.count("==") == 1 and line[0] != "#"]

"""requirements.lock: every package of the images but torch, at the tested version, with the hashes of its files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)


def _pins(text: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in _PIN.findall(text)}


def test_versions_are_the_tested_ones() -> None:
    tested = _pins((ROOT / "constraints.txt").read_text("utf-8"))
    assert _pins(LOCK).items() <= tested.items()


def test_every_package_has_hashes_and_no_address_is_named() -> None:
    blocks = [block for block in re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK) if _PIN.match(block)]
    assert len(blocks) == len(_pins(LOCK)) > 100
    assert [block for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)] == []
    assert not re.search(r"https?:|--(?:extra-)?index-url|--find-links|file:", LOCK)


def test_what_the_package_needs_is_locked_except_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {canonicalize_name(Requirement(each).name) for each in project["dependencies"]}
    assert needed - _pins(LOCK).keys() == {"torch"}
    assert not [name for name in _pins(LOCK) if name.startswith(("nvidia-", "cuda-", "triton"))]

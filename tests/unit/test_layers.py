"""Importing costs what it must and no more, and everything imports where there is no GPU."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import compass_ray

LIGHT = (
    "compass_ray",
    "compass_ray.config",
    "compass_ray.core",
    "compass_ray.languages",
    "compass_ray.artifacts",
)
"""What a driver, a login node or a shell completion imports."""

MODULES = tuple(
    module.name
    for module in pkgutil.walk_packages(compass_ray.__path__, prefix="compass_ray.")
    if not module.name.endswith("__main__")
)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_pulls_neither_ray_nor_torch(module: str) -> None:
    done = _run(f"import {module}, sys; print(sorted({{'ray', 'torch', 'transformers'}} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr or f"importing {module} pulls {done.stdout}"


def test_every_module_imports_without_the_optional_packages() -> None:
    blocked = "{'cuml', 'cupy', 'deepspeed', 'lm_eval', 'vllm'}"
    code = f"""
import importlib, sys, traceback
for name in {blocked}:
    sys.modules[name] = None  # any import of it now fails
failed = []
for name in {MODULES!r}:
    try:
        importlib.import_module(name)
    except Exception:
        failed.append(name + chr(10) + traceback.format_exc())
print(chr(10).join(failed))
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("compass-ray") == compass_ray.__version__

"""Light modules import neither Ray nor torch, every module imports without a GPU, and every import is declared."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

import compass_ray

LIGHT = (
    "compass_ray",
    "compass_ray.config",
    "compass_ray.core",
    "compass_ray.languages",
    "compass_ray.artifacts",
    "compass_ray.vllm_plugin",
)
"""Imported by a driver, a login node or shell completion."""

MODULES = tuple(
    module.name
    for module in pkgutil.walk_packages(compass_ray.__path__, prefix="compass_ray.")
    if not module.name.endswith(("__main__", "_backend"))
)
"""All except ``*_backend``: each wraps one optional package and is imported on demand."""

BESIDE = {"vllm"}
"""Installed in an environment of its own, since it takes other versions of the same packages (requirements-vllm.txt)."""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_neither_ray_nor_torch(module: str) -> None:
    done = _run(f"import {module}, sys; print(sorted({{'ray', 'torch', 'transformers'}} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr or f"importing {module} also imports {done.stdout}"


def test_the_ingress_loads_no_torch() -> None:
    done = _run("import compass_ray.serving.ingress, sys; print(sorted({'torch', 'transformers'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr or f"importing the ingress loads {done.stdout}"


def test_every_module_imports_without_the_optional_packages() -> None:
    blocked = "{'cuml', 'cupy', 'deepspeed', 'lightgbm', 'lm_eval', 'triton', 'vllm'}"
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
    assert version("compass-ray") == compass_ray.__version__


def _imported() -> set[str]:
    """Top-level names of all imports of the package, at the top of a module or inside a function."""
    names = set()
    for path in Path(compass_ray.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"compass_ray"}


def _canonical(requirement: str) -> str:
    """Normalize a requirement: ``fast_hdbscan>=0.3`` to ``fast-hdbscan``, ``cuml-cu13>=26.10`` to ``cuml``."""
    name = re.split(r"[\[<>=!~; ]", requirement)[0]
    return re.sub(r"-cu\d+$", "", re.sub(r"[-_.]+", "-", name).lower())


def test_everything_imported_is_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    optional = [name for extra in ("gpu", "eval", "baselines") for name in project["optional-dependencies"][extra]]
    declared = {_canonical(requirement) for requirement in [*project["dependencies"], *optional]}
    distributions = packages_distributions()
    undeclared = {
        name for name in _imported() - BESIDE if not {_canonical(found) for found in distributions.get(name, [name])} & declared
    }
    assert not undeclared, f"imported, but missing from pyproject.toml: {sorted(undeclared)}"

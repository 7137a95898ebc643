"""The wheel carries everything that the package reads at run time, and nothing with a name too general to install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    where = tmp_path_factory.mktemp("wheel")
    build = "pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir"
    subprocess.run([sys.executable, "-m", *build.split(), where, ROOT], check=True, capture_output=True)
    (wheel,) = where.glob("compass_ray-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_file_of_the_package_is_in_it(contents: set[str]) -> None:
    files = (path for path in (ROOT / "compass_ray").rglob("*") if path.is_file())
    wanted = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert "compass_ray/py.typed" in wanted
    assert wanted <= contents, f"left out: {sorted(wanted - contents)}"


def test_it_installs_one_package_and_one_command(contents: set[str]) -> None:
    assert {name.split("/")[0] for name in contents if ".dist-info/" not in name} == {"compass_ray"}
    assert any(name.endswith(".dist-info/entry_points.txt") for name in contents)

"""Help texts and usage errors need neither Ray nor torch, so they appear at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from compass_ray import cli
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config

_PROGRAM = """
import contextlib, io, json, shlex, sys
from compass_ray import cli
loaded = {}
for line in json.load(sys.stdin):
    sys.argv = ["compass-ray", *shlex.split(line)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as ended:
            loaded[line] = [ended.code or 0, sorted({"ray", "torch", "transformers"} & set(sys.modules)), err.getvalue()]
print(json.dumps(loaded))
"""


def _loaded(lines: list[str]) -> dict[str, tuple[int, list[str], str]]:
    """Exit code, heavy modules and standard error of each line, one after the other in one new process."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], input=json.dumps(lines), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {line: (code, modules, error) for line, (code, modules, error) in json.loads(done.stdout).items()}


def _commands(group: typer.core.TyperGroup) -> list[str]:
    inner = ((name, getattr(command, "commands", None)) for name, command in group.commands.items())
    return [line for name, below in inner for line in (name, *(f"{name} {each}" for each in below or ()))]


def test_no_help_loads_ray_or_torch() -> None:
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    lines = ["--help", "--version", *(f"{name} --help" for name in _commands(group))]
    assert {line: (code, modules) for line, (code, modules, _) in _loaded(lines).items()} == {line: (0, []) for line in lines}


def test_the_list_of_commands_loads_no_settings() -> None:
    program = "import sys; from compass_ray import cli; print({'numpy', 'pyarrow', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.fixture
def run(tmp_path: Path) -> str:
    made = RunDir(str(tmp_path / "run"))
    made.write_config(load_run_config("atlas-test"))
    return made.uri


def test_no_usage_error_loads_ray_or_torch(run: str) -> None:
    with_settings = ("adapt --preset atlas-test --run {0}", "demo --run {0}", "doctor --run {0}", "simulate --run {0}")
    with_settings += ("quantile-test --preset atlas-test --run {0}", "serve {0}", "update {0} --ready", "recluster {0}")
    with_settings += ("corrections {0} --language sw",)
    lines = [
        "statu",
        "adapters lst",
        "adapt --run {0} --perset atlas",
        "adapt --run {0} --preset atlass",
        "adapt --run {0} --preset atlas-test --until trian",
        "adapt --run {0} --preset atlas-test --languages swa",
        "serve {0} --port many",
        "update {0} --language sw --ready",
        "report {0} --why sw",
        "export {0} yo out",
        "experiment --preset atlas-test --run {0} --vary selekt.budget=1,2",
        *(f"{command} --set selekt.budget=1" for command in with_settings),
    ]
    typed = [line.format(run) for line in lines]
    for line, (code, modules, error) in _loaded(typed).items():
        assert (code, modules) == (2, []), (line, error)
        if "selekt" in line:
            assert "unknown key 'selekt'; did you mean 'select'?" in error


def test_status_loads_neither_ray_nor_torch(run: str) -> None:
    [(code, modules, error)] = _loaded([f"status {run}"]).values()
    assert (code, modules, error) == (0, [], "")

"""Every file states its command and its cost, and is listed in the README's table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.unit.cluster_configs.config_files import CONFIGS, ROOT

FILES = sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.yml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_header_gives_its_command_and_what_it_costs(path: Path) -> None:
    header = path.read_text("utf-8").split("\n\n", 1)[0]
    assert f"cluster_configs/{path.relative_to(CONFIGS)}" in header
    assert re.search(r"[Cc]osts", header)


@pytest.mark.parametrize("name", ["aws-gpu.yaml", "gcp-gpu.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml"])
def test_the_header_mentions_the_duration(name: str) -> None:
    header = (CONFIGS / name).read_text("utf-8").split("\n\n", 1)[0]
    assert re.search(r"[Tt]ime", header)


def test_the_table_names_every_file() -> None:
    table = (CONFIGS / "README.md").read_text("utf-8")
    names = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_file()}
    listed = {name for name in names if f"`{name}`" in table or f"`{Path(name).name}`" in table}
    assert names - listed <= {"README.md", "Dockerfile.dockerignore"}


def test_the_named_job_files_exist() -> None:
    for path in [*FILES, CONFIGS / "README.md"]:
        text = path.read_text("utf-8")
        named = set(re.findall(r"\bjobs[./](\w+(?:\.yaml)?)", text))
        assert all((ROOT / "jobs" / (name if name.endswith(".yaml") else f"{name}.py")).is_file() for name in named), path


def _shown() -> list[list[str]]:
    """Our commands in the README, as words after the program."""
    text = (CONFIGS / "README.md").read_text("utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [
        shlex.split(line) for line in re.findall(r"(?:compass-ray|python -m jobs\.adapt) (.*)", blocks) if "REGISTRY" not in line
    ]


@pytest.mark.parametrize("words", _shown(), ids=" ".join)
def test_the_commands_in_the_readme_have_valid_options(words: list[str]) -> None:
    from compass_ray import cli

    commands: Any = typer.main.get_command(cli.app)
    command = commands.commands[words[0] if words[0] in commands.commands else "adapt"]
    command = command.commands[words[1]] if hasattr(command, "commands") else command
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known

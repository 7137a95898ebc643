"""Completion in the shell, through the mechanism of the installed completion scripts."""

from __future__ import annotations

import os
import subprocess
import sys

from click.testing import CliRunner
from typer.main import get_command

from compass_ray import cli, pipeline
from compass_ray.config import list_presets
from compass_ray.config.reference import list_settings
from compass_ray.config.stage_names import STAGE_NAMES
from compass_ray.languages import LANGUAGES


def complete(line: str, shell: str = "zsh") -> list[str]:
    """The words that a shell is offered at the end of a line."""
    variables = {"_COMPASS_RAY_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    done = CliRunner().invoke(get_command(cli.app), [], env=variables, prog_name="compass-ray", catch_exceptions=False)
    return _words(done.stdout)


def _words(printed: str) -> list[str]:
    """The completed words of zsh's format, which are ``"word":"explanation"`` or plain."""
    if "_arguments" in printed:
        printed = printed.split("'*: :((", 1)[1].rsplit("))'", 1)[0]
        return [each.split('":"')[0].strip('"').replace("\\\\:", ":") for each in printed.splitlines()]
    return printed.split()


def test_presets() -> None:
    assert complete("compass-ray adapt --preset atlas-") == ["atlas-42", "atlas-test"]
    assert complete("compass-ray config show --preset ") == list(list_presets())
    assert complete("compass-ray init rows.jsonl --preset gem") == ["gemma-3-270m"]


def test_languages() -> None:
    assert complete("compass-ray adapt --languages s") == [code for code in LANGUAGES if code.startswith("s")]
    assert complete("compass-ray adapt --languages sw,h") == ["sw,ha", "sw,he", "sw,hi", "sw,hu"]
    assert "sw,sw" not in complete("compass-ray adapt --languages sw,s")
    assert complete("compass-ray adapters promote runs/mine y") == ["yo"]


def test_stages() -> None:
    assert tuple(stage.name for stage in pipeline.STAGES) == STAGE_NAMES
    assert complete("compass-ray adapt --until t") == ["tune", "train"]
    assert complete("compass-ray adapt --force s") == ["select"]


def test_keys_of_set_and_their_choices() -> None:
    assert complete("compass-ray adapt --set select.m") == ["select.methods=", "select.mode="]
    assert complete("compass-ray experiment --set update.promotion=c") == ["update.promotion=canary"]
    assert complete("compass-ray adapt --set cluster.whiten=") == ["cluster.whiten=true", "cluster.whiten=false"]
    assert complete("compass-ray adapt --set select.methods=t") == ["_files"]  # nothing of ours
    keys = [f"{each.key}=" for each in list_settings() if not each.is_section]
    assert complete("compass-ray doctor --set ") == keys


def test_keys_to_explain() -> None:
    assert complete("compass-ray config explain pool.bi")[:2] == ["pool.bias", "pool.bias.p_low"]


def test_completion_imports_neither_torch_nor_ray() -> None:
    script = (
        "import sys\nfrom compass_ray import cli\nsys.argv = ['compass-ray']\n"
        "try: cli.main()\n"
        "finally: assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    words = {"_COMPASS_RAY_COMPLETE": "complete_bash", "COMP_WORDS": "compass-ray adapt --set select.w", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | words, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["select.weights="], "")

"""The worked examples of the documents run unchanged, and everything that they tell a reader to type or open exists.

The documents are README.md and the pages of ``docs/``.

An HTML comment before a fenced block says what the block is: ``<!-- example: NAME, file PATH -->`` for a file that the
reader writes, ``<!-- example: NAME, run -->`` for commands. Examples share one folder and run in their order.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import typer

ROOT = Path(__file__).parents[2]
DOCUMENTS = {path: path.read_text("utf-8") for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
TEXT = "\n".join(DOCUMENTS.values())
_BLOCK = re.compile(
    r"(?:<!-- example: (?P<example>[^,>]+), (?P<what>[^>]+?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL
)
_COMMAND = re.compile(r"(?:\.venv/bin/)?(?:compass-ray|python -m jobs\.(?P<job>\w+))\s(?P<rest>.*)")
_STAGE_JOBS = ("adapt", "embed", "cluster", "select", "train", "evaluate")
EXAMPLES = ("pool", "guides", "base model", "encoder", "language")


@dataclass(frozen=True)
class Block:
    """A fenced block: the example that it belongs to and what it is in it, both None where it only shows something."""

    example: str | None
    what: str | None
    kind: str
    text: str


BLOCKS = [Block(found["example"], found["what"], found["kind"], found["text"]) for found in _BLOCK.finditer(TEXT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader follows the examples: empty, and outside the checkout."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def environment(ray_cluster: None) -> dict[str, str]:
    """The reader's environment: the installed command on the path, the suite's Ray, no hub."""
    import ray

    programs = str(Path(sys.executable).parent)
    address = ray.get_runtime_context().gcs_address
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "RAY_ADDRESS": address, "HF_HUB_OFFLINE": "1"}


def _follow(example: str, folder: Path, environment: dict[str, str]) -> str:
    """Write the example's files, run its commands, and return what they printed."""
    printed = ""
    for block in (b for b in BLOCKS if b.example == example):
        assert block.what is not None
        if block.what.startswith("file "):
            (folder / block.what.removeprefix("file ")).write_text(block.text, "utf-8")
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


def test_every_kind_of_own_thing_has_an_example_that_runs() -> None:
    assert tuple(dict.fromkeys(b.example for b in BLOCKS if b.what == "run")) == EXAMPLES


@pytest.mark.slow
def test_own_pool(folder: Path, environment: dict[str, str]) -> None:
    _follow("pool", folder, environment)
    rows = pq.read_table(folder / "runs/pool/pool/rows.parquet").to_pylist()
    mine = [row for row in rows if row["source"] == "rows"]
    assert {(row["language"], row["subject"]) for row in mine} == {("sw", "money"), ("sw", "language"), ("sw", "lakes")}
    assert {row["language"] for row in rows} == {"sw", "en", "ar", "hi"}
    refused = pq.read_table(folder / "runs/pool/pool/rejected.parquet").to_pylist()
    assert [row["reason"] for row in refused if row["source"] == "rows"] == ["the prompt is empty"]


@pytest.fixture(scope="module")
def guides_printed(folder: Path, environment: dict[str, str]) -> str:
    """What the example of guide prompts prints; the example of a base model goes on with its run."""
    return _follow("guides", folder, environment)


@pytest.mark.slow
def test_own_guide_prompts(folder: Path, guides_printed: str) -> None:
    selection = folder / "runs/mine/selections/compass/sw"
    allocation = json.loads((selection / "allocation.json").read_text())
    asked_about = {c["cluster"] for c in allocation["clusters"] if c["n_eval"]}
    added = pq.read_table(selection / "rows.parquet", filters=[("role", "=", "auxiliary")]).to_pylist()
    assert added
    assert {row["cluster"] for row in added} <= asked_about
    assert allocation["js_after"] < allocation["js_before"]
    chosen = pq.read_table(selection / "rows.parquet")["row_id"].to_pylist()
    assert csv.read_csv(folder / "chosen.csv")["row_id"].to_pylist() == chosen
    assert f"{chosen[-1]}, " in guides_printed
    assert "number " in guides_printed
    assert "cluster 0: " in guides_printed


@pytest.mark.soak
@pytest.mark.usefixtures("guides_printed")
def test_own_base_model_goes_on_with_the_same_run(folder: Path, environment: dict[str, str]) -> None:
    before = (folder / "runs/mine/selections/compass/sw/manifest.json").read_bytes()
    _follow("base model", folder, environment)
    assert (folder / "runs/mine/adapters/sw/v0001/adapter_model.safetensors").is_file()
    assert (folder / "runs/mine/selections/compass/sw/manifest.json").read_bytes() == before


@pytest.mark.soak
def test_own_encoder(folder: Path, environment: dict[str, str]) -> None:
    _follow("encoder", folder, environment)
    pool = folder / "runs/other-encoder/pool/rows.parquet"
    parts = sorted((folder / "runs/other-encoder/embeddings/pool").glob("part-*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) == pq.read_metadata(pool).num_rows


@pytest.mark.slow
def test_own_language(folder: Path, environment: dict[str, str]) -> None:
    printed = _follow("language", folder, environment)
    assert "Yoruba (yo)" in printed
    assert "Igbo (ig)" in printed
    for code in ("yo", "ig"):
        guide = pq.read_table(folder / f"runs/yoruba/guides/{code}/guide.parquet")
        assert set(guide["language"].to_pylist()) == {code}


def _commands() -> list[tuple[str, list[str]]]:
    """Every command of ours in the documents: the words after the program, with the job's own words put in front."""
    found = []
    for block in (b for b in BLOCKS if b.kind == "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if match := _COMMAND.search(line):
                job = match["job"]
                command = [] if job is None else ["adapt" if job in _STAGE_JOBS else job]
                found.append((line.strip(), command + shlex.split(match["rest"], comments=True)))
    return found


@pytest.mark.parametrize(("line", "words"), _commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_options_shown_exist(line: str, words: list[str]) -> None:
    from compass_ray import cli

    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


def test_the_jobs_presets_targets_and_files_named_exist() -> None:
    from compass_ray import config

    makefile = (ROOT / "Makefile").read_text()
    assert {f"jobs/{job}.py" for job in re.findall(r"\bjobs\.(\w+)", TEXT)} <= {f"jobs/{p.name}" for p in ROOT.glob("jobs/*.py")}
    assert set(re.findall(r"--preset ([\w.-]+)", TEXT)) <= set(config.list_presets())
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"`make ([\w-]+)`", TEXT))
    packages = "|".join(sorted(path.parent.name for path in ROOT.glob("compass_ray/*/__init__.py")))
    modules = re.findall(rf"`((?:{packages})/[\w./]*)`", TEXT)
    assert not [module for module in modules if not (ROOT / "compass_ray" / module).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_a_document_links_to_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", DOCUMENTS[path])
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_picture_stands_alone() -> None:
    picture = (ROOT / "docs/loop.svg").read_text("utf-8")
    assert "prefers-color-scheme: dark" in picture
    assert not re.search(r"(?:href|src)=\"(?!#)", picture)

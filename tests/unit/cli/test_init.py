"""``compass-ray init``: columns and languages of a user's file are recognized, and the written file is a valid configuration."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.config import ConfigError, RunConfig, load_run_config
from compass_ray.config.json_schema import build_json_schema
from compass_ray.config.preset_catalog import SCHEMA_COMMENT
from compass_ray.sources.column_mapping import load_rows
from compass_ray.sources.config_draft import ConfigDraft, write_draft
from compass_ray.sources.file_recognition import GUIDE_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, recognize_file
from tests.unit.command_line import Command

pytestmark = pytest.mark.usefixtures("ray_sessions")

TEXTS = [("Mji mkuu wa Kenya?", "Nairobi", "sw"), ("Mji mkuu wa Uganda?", "Kampala", "sw"), ("भारत की राजधानी?", "दिल्ली", "hi")]
COLUMNS = "prompt: Question, response: Answer, language: locale, subject: topic"
TURNS = {"messages": ("role", "user", "assistant", "content"), "conversations": ("from", "human", "gpt", "value")}


def _turns(kind: str, prompt: str, response: str) -> list[dict[str, str]]:
    role, asked, replied, content = TURNS[kind]
    return [{role: asked, content: prompt}, {role: replied, content: response}]


LAYOUTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "own": ("own", [{"prompt": p, "response": r, "language": code} for p, r, code in TEXTS]),
    "aya": ("aya_dataset", [{"inputs": p, "targets": r, "language_code": code} for p, r, code in TEXTS]),
    "alpaca": ("alpaca", [{"instruction": p, "output": r, "lang": code} for p, r, code in TEXTS]),
    "usual names": ("own", [{"Question": p, "Answer": r, "locale": code, "topic": "geography"} for p, r, code in TEXTS]),
    "chat": ("messages", [{"messages": _turns("messages", p, r), "language": code} for p, r, code in TEXTS]),
    "sharegpt": ("sharegpt", [{"conversations": _turns("conversations", p, r), "lang": code} for p, r, code in TEXTS]),
    "named chat": ("messages", [{"dialog": _turns("messages", p, r), "language": code} for p, r, code in TEXTS]),
}


def _write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(json.dumps(each) for each in rows), "utf-8")
    return file


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_columns_of_a_file_are_recognized(tmp_path: Path, name: str, ending: str) -> None:
    layout, rows = LAYOUTS[name]
    found = recognize_file(str(_write(tmp_path, rows, f"rows.{ending}")), ROW_COLUMNS)
    assert (found.layout, found.rows, found.unknown) == (layout, {"sw": 2, "hi": 1}, {})
    table = load_rows(found.source, ROW_COLUMNS)
    read = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), table["language"].to_pylist(), strict=True)
    assert list(read) == TEXTS
    assert set(found.columns.values()) <= set(rows[0])
    assert ("subject" in found.columns) == ("topic" in rows[0])


def test_given_columns_come_before_usual_names(tmp_path: Path) -> None:
    file = _write(tmp_path, [{"question": "a", "query": "b", "answer": "c"}])
    found = recognize_file(str(file), ROW_COLUMNS, {"prompt": "query"}, "sw")
    assert dict(found.source.columns) == {"prompt": "query", "response": "answer"}
    assert load_rows(found.source, ROW_COLUMNS)["prompt"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("rows", "needed", "message"),
    [
        ([{"prompt": "a", "response": "b"}], ROW_COLUMNS, "no column for language; .* give --language CODE"),
        ([{"zzz": "a", "language": "sw"}], ROW_COLUMNS, "no column for prompt; it has zzz, language.* --column prompt=zzz"),
        ([{"question": "a", "answer": "A"}], ITEM_COLUMNS, "no column for option_a; it has question, answer"),
        ([], GUIDE_COLUMNS, "has no rows"),
    ],
)
def test_a_column_that_is_not_recognized_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], needed: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recognize_file(str(_write(tmp_path, rows)), needed)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of rows."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, [*LAYOUTS["usual names"][1], {"Question": "x", "Answer": "y", "locale": "Klingon", "topic": ""}])
    return tmp_path


def _uncomment(text: str) -> str:
    """The file with the settings that are often changed, which are comments."""
    start = text.index("# Settings that are often changed")
    return text[:start] + "\n".join(line.removeprefix("# ") for line in text[start:].splitlines()[1:])


def test_the_file_is_valid_and_the_doctor_accepts_it(compass_ray: Command, folder: Path) -> None:
    done = compass_ray("init rows.jsonl")
    assert done.code == 0, done.err
    assert "columns: prompt = Question, response = Answer, language = locale, subject = topic" in done.out
    assert "1 rows of 'Klingon'" in done.out
    config = load_run_config(file="compass-ray.yaml")
    assert (config.languages, config.pool.languages, config.pool.bias) == (("sw", "hi"), None, None)
    assert [source.path for source in config.pool.sources] == ["rows.jsonl"]
    assert not config.pool.guides.exclude
    text = Path("compass-ray.yaml").read_text("utf-8")
    assert all(len(line) <= 130 for line in text.splitlines())
    findings = json.loads(compass_ray("doctor --config compass-ray.yaml --run run --no-forecast --json").out)
    assert not [each for each in findings if each["blocking"]]
    Path("all.yaml").write_text(_uncomment(text), "utf-8")
    assert Path("all.yaml").read_text("utf-8").count("base_model") == 1
    assert load_run_config(file="all.yaml") == config


def test_one_language_gets_candidates_of_others(compass_ray: Command, folder: Path) -> None:
    _write(folder, [{"prompt": p, "response": r} for p, r, _ in TEXTS], "one.jsonl")
    done = compass_ray("init one.jsonl --language swh --output one.yaml --json")
    assert json.loads(done.out) == {
        "output": "one.yaml",
        "schema": "compass-ray.schema.json",
        "preset": "atlas",
        "languages": ["sw"],
        "layout": "own",
        "columns": {"prompt": "prompt", "response": "response"},
        "rows": {"sw": 3},
        "unknown_languages": {},
    }
    assert [source.path for source in load_run_config(file="one.yaml").pool.sources] == ["one.jsonl", "atlas"]


def test_own_guide_and_test_sets_replace_those_of_the_preset(compass_ray: Command, folder: Path) -> None:
    _write(folder, [{"question": "Mto mrefu?"}, {"question": "Ziwa kubwa?"}], "asked.jsonl")
    item = {"question": "Nchi kubwa?", "option_a": "Sudan", "option_b": "Aljeria", "answer": "B"}
    _write(folder, [item], "items.jsonl")
    assert compass_ray("init rows.jsonl --guides asked.jsonl --tests items.jsonl --languages sw").code == 0
    pool = load_run_config(file="compass-ray.yaml").pool
    assert (pool.guides.path, dict(pool.guides.columns), pool.guides.exclude) == ("asked.jsonl", {"prompt": "question"}, {})
    assert (pool.tests.path, pool.tests.split) == ("items.jsonl", "train")
    findings = json.loads(compass_ray("doctor --config compass-ray.yaml --run run --no-forecast --json").out)
    assert not [each for each in findings if each["blocking"]]
    assert any("sw 2/1" in each["found"] for each in findings)


def test_an_editor_finds_the_schema_next_to_the_file(compass_ray: Command, folder: Path) -> None:
    Path("settings").mkdir()
    assert compass_ray("init rows.jsonl --output settings/mine.yaml").code == 0
    first, _, _ = Path("settings/mine.yaml").read_text("utf-8").partition("\n")
    schema = Path("settings") / first.removeprefix(SCHEMA_COMMENT)
    assert json.loads(schema.read_text("utf-8")) == build_json_schema()
    assert str(folder) not in Path("settings/mine.yaml").read_text("utf-8")


def test_the_commands_to_type_next_name_the_file_in_quotes(compass_ray: Command, folder: Path) -> None:
    done = compass_ray("init rows.jsonl --output 'my settings; x.yaml'")
    written = [line for line in Path("my settings; x.yaml").read_text("utf-8").splitlines() if "--config" in line]
    commands = [*written, done.out.rpartition(": ")[2]]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.removeprefix("#"))
        assert words[2:4] == ["--config", "my settings; x.yaml"]


def test_credentials_of_an_address_are_in_no_comment(folder: Path) -> None:
    found = recognize_file("rows.jsonl", ROW_COLUMNS)
    path = "s3://AKIA1:secret@bucket/rows.jsonl"
    draft = ConfigDraft(replace(found, source=found.source.model_copy(update={"path": path})), "atlas", Path("mine.yaml"))
    text = write_draft(draft)
    assert [line.strip() for line in text.splitlines() if "secret" in line] == [f"- {{path: '{path}', columns: {{{COLUMNS}}}}}"]
    assert "s3://***@bucket/rows.jsonl" in text
    assert "keep this file private" in text
    assert "private" not in write_draft(replace(draft, rows=found))


@pytest.mark.parametrize("preset", ["atlas", "atlas-test", "gemma-3-270m", "phi-4-mini", "phi-4-mini-prox"])
def test_every_kind_of_preset_can_be_the_base(compass_ray: Command, folder: Path, preset: str) -> None:
    done = compass_ray(f"init rows.jsonl --preset {preset} --output mine.yaml")
    assert done.code == 0, done.err
    mine, base = load_run_config(file="mine.yaml"), load_run_config(preset)
    assert isinstance(mine, RunConfig)
    assert (mine.train, mine.embed, mine.identifier) == (base.train, base.embed, base.identifier)
    assert mine.drift.share_per_key == 0.25


def test_an_existing_file_is_kept_without_force(compass_ray: Command, folder: Path) -> None:
    Path("compass-ray.yaml").write_text("mine")
    done = compass_ray("init rows.jsonl")
    assert (done.code, Path("compass-ray.yaml").read_text()) == (2, "mine")
    assert "compass-ray.yaml exists; give another file with --output, or replace it with --force" in done.err
    assert compass_ray("init rows.jsonl --force").code == 0
    assert "extends: atlas" in Path("compass-ray.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("init none.jsonl", "none.jsonl: the file does not exist"),
        ("init rows.jsonl --preset atlass", "did you mean 'atlas'?"),
        ("init rows.jsonl --column prompt", "--column 'prompt': expected OURS=THEIRS"),
        ("init rows.jsonl --column prompt=Frage", "no column for prompt; it has Question"),
        ("init rows.jsonl --languages swa", "unknown language 'swa'"),
        ("init foreign.jsonl", "there are no guide and test sets for its languages (bul), only for am, ar"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_nothing_is_written(
    compass_ray: Command, folder: Path, line: str, message: str
) -> None:
    _write(folder, [{"prompt": "a", "response": "b", "language": "bul"}], "foreign.jsonl")
    done = compass_ray(line)
    assert (done.code, Path("compass-ray.yaml").exists()) == (2, False)
    assert message in done.err

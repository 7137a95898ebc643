"""`doctor` refuses a configuration that would not run, by the name of the setting and with a remedy; what it accepts is read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cli.preflight import run_checks
from compass_ray.cli.serve_export import _StopSignals, _warn_without_monitor
from compass_ray.config import RunConfig, parse_config, with_overrides
from compass_ray.models.errors import ModelError
from compass_ray.preflight import require_served_models
from compass_ray.serving import monitor_actor
from compass_ray.serving.monitor_actor import MonitorActor
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.pool import read_pool
from tests import former_run

_ASSETS = Path(str(resources.files("compass_ray") / "sources" / "atlas" / "assets"))
_ROWS = [{"prompt": f"Swali la {i}", "response": f"Jibu {i}", "language": "swh"} for i in range(8)]
_ITEMS = [
    {"prompt": f"Lipi ni {i}?", "option_a": "moja", "option_b": "mbili", "answer": "A", "language": "swh"} for i in range(4)
]
_MESSAGES = [{"messages": [{"role": "user", "content": "Habari"}, {"role": "assistant", "content": "Nzuri"}]}]


def _write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that a configuration can name."""
    folder = tmp_path_factory.mktemp("parts")
    pq.write_table(pa.Table.from_pylist(_ROWS), folder / "pool.parquet")
    _write_lines(folder / "more.jsonl", _ROWS[:4])
    _write_lines(folder / "guides.jsonl", [{"prompt": f"Je, {i}?"} for i in range(5)])
    _write_lines(folder / "tests.jsonl", _ITEMS)
    for part in ("base_model", "encoder"):
        shutil.copytree(_ASSETS / part, folder / part)
    shutil.copy(_ASSETS / "language_id" / "model.ftz", folder / "model.ftz")
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    shutil.copy(str(resources.files("compass_ray") / "sources" / "typology" / "transfers.json"), folder / "transfers.json")
    (folder / "keys.txt").write_text(f"team:{hashlib.sha256(b'secret').hexdigest()}\n")
    return folder


@pytest.fixture
def folder(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the parts, as the working directory."""
    monkeypatch.setattr("compass_ray.preflight.require_deepspeed", lambda: None)
    shutil.copytree(parts, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def _tree() -> dict[str, Any]:
    return {
        "languages": ["sw"],
        "pool": {
            "languages": ["sw", "en"],
            "sources": [{"path": "pool.parquet"}, {"path": "more" if Path("more").is_dir() else "more.jsonl"}],
            "guides": {"path": "guides.jsonl"},
            "tests": {"path": "tests.jsonl"},
            "bias": None,
        },
        "embed": {"encoder": "./encoder"},
        "train": {"base_model": "./base_model", "max_tokens": 64},
        "identifier": {"model": "./model.ftz"},
        "full": {"deepspeed": "ds.json"},
        "select": {"methods": ["compass", "compass_fft", "langrank"], "transfer": {"results": "transfers.json"}},
        "serve": {"api_keys": "keys.txt"},
    }


def _refusals(config: RunConfig, folder: Path) -> list[str]:
    results = run_checks(config, RunDir(str(folder.parent / "run")))
    return [f"{each.found} -> {each.remedy}" for each in results if each.blocking]


def test_what_doctor_accepts_is_read_and_counted_as_doctor_says(folder: Path) -> None:
    config = parse_config(_tree())
    results = run_checks(config, RunDir(str(folder.parent / "run")))
    assert [each for each in results if each.blocking] == []
    by_check = {each.check: each.found for each in results}
    pool, sets = read_pool(config.pool), read_guide_and_test(config.pool, "sw")
    assert by_check["languages"] == f"rows: Swahili (sw) {pool.rows.num_rows}"
    assert by_check["guide sets"] == f"prompts/test items: sw {sets.guide.num_rows}/{sets.test.num_rows}"
    assert by_check["encoder"] == f"{folder / 'encoder'} is on this machine"


def test_a_configuration_with_relative_paths_is_accepted_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(_tree())
    monkeypatch.chdir(folder.parent)
    assert _refusals(RunConfig.model_validate(config.model_dump(mode="json")), folder) == []


def test_a_folder_is_accepted_beside_files_of_other_kinds(folder: Path) -> None:
    _folder_of("train-00000.jsonl", _ROWS[:4])(folder)
    (folder / "more" / "notes").mkdir()
    (folder / "more" / "notes" / "other.json").write_text("")
    (folder / "more" / "README.md").write_text("---\nconfigs: [{config_name: default, data_files: train-*}]\n---\n")
    assert _refusals(parse_config(_tree()), folder) == []


def _gone(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _empty(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"") and None


def _folder_instead(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def _file_instead(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / name)
        (folder / name).write_text("model")

    return change


def _half(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def _with_lines(name: str, rows: list[Any]) -> Callable[[Path], None]:
    return lambda folder: _write_lines(folder / name, rows)


def _with_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _folder_of(file: str, rows: list[Any]) -> Callable[[Path], None]:
    """Make the second source a folder with one file of rows."""

    def change(folder: Path) -> None:
        (folder / "more").mkdir()
        _write_lines(folder / "more" / file, rows)

    return change


REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "pool file missing": (_gone("pool.parquet"), "pool.sources.0", "does not exist"),
    "second pool file missing": (_gone("more.jsonl"), "pool.sources.1", "does not exist"),
    "pool file empty": (_empty("pool.parquet"), "pool.sources.0", "is empty"),
    "pool file truncated": (_half("pool.parquet"), "pool.sources.0", "download it again"),
    "pool is an empty folder": (_folder_instead("more.jsonl"), "pool.sources.1", "has no file of rows"),
    "pool of other columns": (_with_lines("more.jsonl", [{"a": "x"}]), "pool.sources.1", "no column for prompt"),
    "pool of messages": (_with_lines("more.jsonl", _MESSAGES), "pool.sources.1", "no column for language"),
    "pool folder of messages": (_folder_of("train.jsonl", _MESSAGES), "pool.sources.1", "no column for language"),
    "pool folder with an empty file": (_folder_of("train-0.jsonl", []), "pool.sources.1", "is empty"),
    "pool folder of another split": (
        _folder_of("test.jsonl", _ROWS),
        "pool.sources.1",
        "Check the name",
    ),
    "pool of blank rows": (
        _with_lines("more.jsonl", [{"prompt": " ", "response": "x", "language": "swh"}]),
        "pool.sources.1",
        "the prompt is empty",
    ),
    "pool of another language": (
        _with_lines("more.jsonl", [{"prompt": "x", "response": "x", "language": "fra"}]),
        "pool.sources.1",
        "not in pool.languages",
    ),
    "pool of no known language": (
        _with_lines("more.jsonl", [{"prompt": "x", "response": "x", "language": "Klingon!"}]),
        "pool.sources.1",
        "the language is not known",
    ),
    "guides missing": (_gone("guides.jsonl"), "pool.guides", "does not exist"),
    "guides empty": (_empty("guides.jsonl"), "pool.guides", "is empty"),
    "guides of other columns": (_with_lines("guides.jsonl", [{"a": "x"}]), "pool.guides", "no column for prompt"),
    "tests missing": (_gone("tests.jsonl"), "pool.tests", "does not exist"),
    "tests without answers": (_with_lines("tests.jsonl", [{"prompt": "x"}]), "pool.tests", "no column for option_a"),
    "tests of another language": (
        _with_lines("tests.jsonl", [{**item, "language": "fra"} for item in _ITEMS]),
        "pool.tests",
        "correct pool.tests",
    ),
    "encoder missing": (_gone("encoder"), "embed.encoder", "does not exist"),
    "encoder is a file": (_file_instead("encoder"), "embed.encoder", "give the folder of the model"),
    "encoder without weights": (_gone("encoder/model.safetensors"), "embed.encoder", "has no weights"),
    "encoder truncated": (_half("encoder/model.safetensors"), "embed.encoder", "damaged or incomplete"),
    "base missing": (_gone("base_model"), "train.base_model", "does not exist"),
    "base truncated": (_half("base_model/model.safetensors"), "train.base_model", "damaged or incomplete"),
    "base without its configuration": (_gone("base_model/config.json"), "train.base_model", "has no config.json"),
    "base that is no language model": (
        _with_text("base_model/config.json", '{"model_type": "clip"}'),
        "train.base_model",
        "set train.base_model",
    ),
    "identifier missing": (_gone("model.ftz"), "identifier.model", "does not exist"),
    "identifier of another kind": (_with_text("model.ftz", "words"), "identifier.model", "is not a fastText model"),
    "DeepSpeed file missing": (_gone("ds.json"), "full.deepspeed", "cannot be read"),
    "DeepSpeed file damaged": (_with_text("ds.json", "{"), "full.deepspeed", "not valid JSON"),
    "transfers missing": (_gone("transfers.json"), "select.transfer.results", "cannot be read"),
    "keys missing": (_gone("keys.txt"), "serve.api_keys", "cannot be read"),
    "keys empty": (_empty("keys.txt"), "serve.api_keys", "has no key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_doctor_refuses_by_the_name_of_the_setting(folder: Path, case: str) -> None:
    change, setting, advice = REFUSED[case]
    change(folder)
    refusals = _refusals(parse_config(_tree()), folder)
    assert any(setting in each and advice in each for each in refusals), refusals
    assert sum("identifier" in each for each in refusals) <= 1


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("pool.parquet", "pool.sources.0"),
        ("more.jsonl", "pool.sources.1"),
        ("guides.jsonl", "pool.guides"),
        ("tests.jsonl", "pool.tests"),
        ("encoder/model.safetensors", "embed.encoder"),
        ("base_model/model.safetensors", "train.base_model"),
        ("model.ftz", "identifier.model"),
        ("ds.json", "full.deepspeed"),
        ("transfers.json", "select.transfer.results"),
        ("keys.txt", "serve.api_keys"),
    ],
)
def test_doctor_refuses_a_file_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, setting: str) -> None:
    """The error is injected, because root may read every file."""
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == folder / name:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    refusals = _refusals(parse_config(_tree()), folder)
    assert any(setting in each and "Permission denied" in each for each in refusals), refusals


@pytest.mark.parametrize(("name", "setting"), [("base_model", "train.base_model"), ("model.ftz", "identifier.model")])
def test_a_service_does_not_start_without_what_answers_requests(folder: Path, name: str, setting: str) -> None:
    config = parse_config(_tree())
    require_served_models(config)
    _empty("base_model/model.safetensors" if name == "base_model" else name)(folder)
    with pytest.raises(ModelError, match=f"{setting}: .* is empty"):
        require_served_models(config)


def test_serve_warns_if_the_monitor_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = former_run.extract(tmp_path)
    config = with_overrides(run.read_config(), ["embed.encoder=/no/encoder"])
    actor = MonitorActor(run.uri, config.model_dump(mode="json"))
    monkeypatch.setattr(monitor_actor, "find_failure", lambda *_: actor.failure())
    _warn_without_monitor(run, config, _StopSignals())
    assert "warning: the monitor cannot start: encoder '/no/encoder' does not exist on this machine" in capsys.readouterr().err


def test_an_unset_variable_in_a_path_is_refused(folder: Path) -> None:
    tree = _tree()
    tree["pool"]["guides"] = {"path": "${NO_SUCH_FOLDER}/guides.jsonl"}
    refusals = _refusals(parse_config(tree), folder)
    assert any("pool.guides" in each and "NO_SUCH_FOLDER is not set" in each for each in refusals), refusals

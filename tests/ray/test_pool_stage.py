"""The pool stage: rows are read in workers, as if the driver had read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray import ray_session
from compass_ray.artifacts import FingerprintMismatchError, RunDir
from compass_ray.config import ConfigError, RunConfig, load_run_config
from compass_ray.pipeline import run_all
from compass_ray.sources.pool import read_pool
from compass_ray.stages import pool, report

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROWS = pa.table({"prompt": ["a?", "b?"], "response": ["1", "2"], "language": ["sw", "hi"]})


def _reading(path: str, **others: str) -> RunConfig:
    settings = [f'pool.sources=[{{"path": "{path}"}}]', *(f"pool.{name}.path={where}" for name, where in others.items())]
    return load_run_config("atlas-test", overrides=settings)


def _no_ray(*_: object) -> NoReturn:
    raise AssertionError("Ray was asked for")


def test_workers_see_the_drivers_folder_and_the_variables_that_paths_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONLY_THE_DRIVER_HAS", str(tmp_path))
    for number, path in enumerate(("rows.parquet", "${ONLY_THE_DRIVER_HAS}/rows.parquet")):
        config, run = _reading(path), RunDir(str(tmp_path / f"run{number}"))
        pool.run(config, run)
        assert run.pool.read_table("rows.parquet").equals(read_pool(config.pool).rows)


def test_a_source_that_cannot_be_read_is_told_as_if_there_were_no_worker(tmp_path: Path) -> None:
    run, told = RunDir(str(tmp_path / "run")), []
    config = _reading(str(tmp_path / "nowhere.parquet"), guides=str(tmp_path / "no-guides.parquet"))
    with pytest.raises(ConfigError) as raised:
        pool.run(config, run, progress=lambda *parts: told.append(parts))
    with pytest.raises(ConfigError) as expected:
        read_pool(config.pool)
    assert type(raised.value) is ConfigError
    assert str(raised.value) == str(expected.value)
    assert told == []


def test_what_can_be_read_is_kept_where_something_else_cannot(tmp_path: Path) -> None:
    run, told = RunDir(str(tmp_path / "run")), []
    with pytest.raises(ConfigError, match="the file does not exist"):
        pool.run(_reading(str(tmp_path / "nowhere.parquet")), run)
    assert run.pool.manifest() is None
    assert [run.guide(code).manifest() is not None for code in ("sw", "hi")] == [True, True]
    pq.write_table(ROWS, tmp_path / "nowhere.parquet")
    pool.run(_reading(str(tmp_path / "nowhere.parquet")), run, progress=lambda *parts: told.append(parts))
    assert told == [("pool", 3, 3)]


def test_rows_of_unknown_languages_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"prompt": ["a?", "b?", "c?"], "response": ["1", "2", "3"], "language": ["sw", "Swahili", "Swahili"]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    pool.run(_reading(str(tmp_path / "rows.parquet")), RunDir(str(tmp_path / "run")))
    expected = "pool: not taken, because the language is not known: 2 rows of 'Swahili' (nearest code 'sw')"
    assert [record.getMessage() for record in caplog.records if record.name == pool.__name__] == [expected]


def test_nothing_is_asked_of_ray_where_everything_stands(
    adapted: RunDir, small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "start", _no_ray)
    assert [m.stage for m in pool.run(small, adapted)] == ["pool"] * 3
    assert report.run(small, adapted) == [adapted.report.require()]


# Own files, and bad ones


def _file(folder: Path, name: str, **columns: list[str]) -> str:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()}), path)
    return str(path)


_OPTIONS = {f"option_{letter}": ["1", "2"] for letter in "abcd"}


def _settings(folder: Path, guides: list[str], **pool: list[str]) -> RunConfig:
    rows = {"prompt": ["p", "r"], "response": ["x", "y"], "language": ["sw", "hi"], **pool}
    paths = {
        "sources": [{"path": _file(folder, "rows", **{k: v for k, v in rows.items() if v})}],
        "guides": {"path": _file(folder, "guides", prompt=guides)},
        "tests": {"path": _file(folder, "tests", prompt=["a", "b"], **_OPTIONS, answer=["A", "B"])},
    }
    return load_run_config(
        "atlas", overrides=["languages=[sw]", *(f"pool.{key}={json.dumps(value)}" for key, value in paths.items())]
    )


def test_own_files_make_a_pool_and_guide_sets(run: RunDir, tmp_path: Path) -> None:
    config = _settings(tmp_path, ["g"])
    run_all(config, run, until="pool")
    assert {"rows": 2, "rejected": 0}.items() <= run.pool.verify().metrics.items()
    assert {"guide": 1, "test": 2, "removed": 0}.items() <= run.guide("sw").verify().metrics.items()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"response": []}, "no column for response; it has prompt, language"),
        ({"prompt": ["", " "]}, "the pool is empty: .* most often because the prompt is empty"),
        ({"language": ["?", "?"]}, "the pool is empty: .* most often because the language is not known"),
    ],
)
def test_a_bad_pool_is_refused(run: RunDir, tmp_path: Path, columns: dict[str, list[str]], told: str) -> None:
    config = _settings(tmp_path, ["g"], **columns)
    with pytest.raises(ConfigError, match=told):
        run_all(config, run, until="pool")
    assert run.pool.manifest() is None


def test_a_guide_set_that_overlaps_the_test_set_is_refused(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 guide prompts of 'sw' are also test questions"):
        run_all(_settings(tmp_path, ["g", "B"]), run, until="pool")
    assert run.guide("sw").manifest() is None


def test_a_pool_whose_content_has_changed_is_not_taken_for_the_same(run: RunDir, tmp_path: Path) -> None:
    run_all(_settings(tmp_path, ["g"]), run, until="pool")
    changed = _settings(tmp_path, ["g"], prompt=["p", "another"])
    with pytest.raises(FingerprintMismatchError, match="pool was made with other settings: sources was"):
        run_all(changed, run, until="pool")
    run_all(changed, run, until="pool", force=["pool"])
    assert "another" in run.pool.read_table("rows.parquet")["prompt"].to_pylist()


def test_a_base_model_that_is_nowhere_does_not_stop_what_needs_none(run: RunDir) -> None:
    run_all(load_run_config("atlas-test", overrides=["train.base_model=/nowhere/model"]), run, until="pool")
    assert run.pool.manifest()

"""Languages without rows: counted as the pool counts them, unknown if counting is not cheap."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pac
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, load_run_config
from compass_ray.preflight import CheckResult, ClusterEnvironment, local_files
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.data import check_guides, check_rows, check_sources
from compass_ray.preflight.local_files import find_source_problems
from compass_ray.sources import source_paths
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.pool import read_pool

_ROWS = pa.table(
    {
        "inputs": [f"prompt {i}" for i in range(9)],
        "targets": [f"reply {i}" for i in range(9)],
        "language_code": ["swh"] * 4 + ["hin"] * 3 + ["xho"] * 2,
        "kind": ["a", "b"] * 4 + ["a"],
    }
)


def _result(run: RunDir, machine: ClusterEnvironment, *settings: str, languages: str = "sw,hi") -> CheckResult:
    config = load_run_config("atlas-test", overrides=settings, languages=languages.split(","))
    [result] = check_rows(CheckContext(config, run, machine))
    return result


def _write_rows(folder: Path, kind: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(_ROWS, path)
    elif kind == "csv":
        pac.write_csv(_ROWS, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in _ROWS.to_pylist()))
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("where", ["{}", "{kind: a}"])
def test_rows_are_counted_as_the_pool_reads_them(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, kind: str, where: str
) -> None:
    source = f"pool.sources=[{{path: {_write_rows(tmp_path, kind)}, include: {where}}}]"
    pool = Counter(read_pool(load_run_config("atlas-test", overrides=[source]).pool).rows["language"].to_pylist())
    found = _result(run, machine, source)
    assert f"Swahili (sw) {pool['sw']}" in found.found
    assert f"Hindi (hi) {pool['hi']}" in found.found
    assert not found.blocking


def test_a_target_without_rows_blocks_the_run(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    source = f"pool.sources=[{{path: {_write_rows(tmp_path, 'parquet')}}}]"
    found = _result(run, machine, source, languages="sw,yo,ig")
    assert found.blocking
    assert found.by == "settings"
    assert found.found == "no rows in the pool's sources: Yoruba (yo), Igbo (ig)"


def test_languages_without_a_code_are_named_with_the_nearest_one(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path
) -> None:
    rows = [{"prompt": "a", "response": "b", "language": each} for each in ("hi", "Swahili", "Swahili")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({**row, "n": n}) + "\n" for n, row in enumerate(rows)))
    found = _result(run, machine, f"pool.sources=[{{path: {tmp_path / 'rows.jsonl'}}}]")
    assert found.blocking
    assert found.found == ("no rows in the pool's sources: Swahili (sw); they have 2 rows of 'Swahili' (nearest code 'sw')")


def test_unknown_languages_beside_known_ones_are_named(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    codes = ["Swahili"] * 20 + ["sw"] * 5
    table = pa.table({"prompt": [f"{i}" for i in range(25)], "response": ["b"] * 25, "language": codes})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    for name in ("rows.parquet", "rows.jsonl"):
        found = _result(run, machine, f"pool.sources=[{{path: {tmp_path / name}}}]", languages="sw")
        assert not found.blocking
        assert "Swahili (sw) 5; not taken, because the language is not known: 20 rows of 'Swahili'" in found.found


def _source_results(run: RunDir, machine: ClusterEnvironment, *settings: str) -> list[CheckResult]:
    return check_sources(CheckContext(load_run_config("atlas-test", overrides=settings), run, machine))


@pytest.mark.parametrize("path", ["s3://bucket/rows.jsonl", "https://host/rows.jsonl"])
@pytest.mark.parametrize("setting", ["pool.sources.0", "pool.guides", "pool.tests"])
def test_a_remote_address_of_rows_blocks_the_run(run: RunDir, machine: ClusterEnvironment, setting: str, path: str) -> None:
    [found] = _source_results(run, machine, f"{setting}.path={path}")
    assert found.blocking
    assert found.found == f"{setting}: {path}: rows are read from files on this machine; download them, and give their path"


def test_a_folder_of_too_many_files_is_refused(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_paths, "MAX_ENTRIES", 3)
    for name in "abcd":
        (tmp_path / f"{name}.jsonl").write_text("{}")
    [found] = _source_results(run, machine, f"pool.sources.0.path={tmp_path}")
    assert found.blocking
    assert found.found.endswith("has more than 3 files and folders; give the folder of the rows alone")


def test_a_dollar_sign_without_a_variable_is_named(run: RunDir, machine: ClusterEnvironment) -> None:
    [found] = _source_results(run, machine, "pool.sources.0.path=./a$/rows.jsonl")
    assert found.blocking
    assert found.found == "pool.sources.0: ./a$/rows.jsonl: a $ starts no variable; write ${NAME}, or $$ for a dollar sign"


def test_a_compressed_file_of_no_known_kind_is_no_file_of_rows(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.zst").write_bytes(b"rows")
    [found] = _source_results(run, machine, f"pool.sources.0.path={tmp_path}")
    assert "has no file of rows" in found.found


def test_a_file_of_many_languages_is_opened_once(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("prompt", "option_a", "option_b", "answer", "language")
    pq.write_table(pa.table({name: ["a"] for name in names}), tmp_path / "rows.parquet")
    opened: list[Path] = []
    read = local_files._read_schema
    monkeypatch.setattr(local_files, "_read_schema", lambda file: opened.append(file) or read(file))
    places = [f"pool.guides.path={tmp_path / 'rows.parquet'}", f"pool.tests.path={tmp_path / 'rows.parquet'}"]
    context = CheckContext(load_run_config("atlas-test", overrides=places, languages=["sw", "hi", "yo"]), run, machine)
    for check in (check_sources, check_rows, check_guides):
        check(context)
    assert len(opened) == 2


def test_a_missing_file_of_one_language_is_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "sw.parquet")
    config = load_run_config("atlas-test", overrides=[f"pool.guides.path={tmp_path}/{{language}}.parquet"])
    found = find_source_problems(config)
    assert found == {"pool.guides": f"{tmp_path}/hi.parquet does not exist; correct the path, or remove the source"}


def test_rows_that_a_filter_excludes_do_not_count(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    path = _write_rows(tmp_path, "parquet")
    source = f"pool.sources=[{{path: {path}, include: {{kind: a}}, exclude: {{inputs: [prompt 4, prompt 6]}}}}]"
    assert _result(run, machine, source).found == "no rows in the pool's sources: Hindi (hi)"


def test_a_folder_is_read_by_configuration_and_split(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    pq.write_table(_ROWS.slice(0, 4), _write_rows(tmp_path / "one", "parquet").replace("rows", "train-00000"))
    pq.write_table(_ROWS.slice(4), _write_rows(tmp_path / "two", "parquet").replace("rows", "train-00000"))
    files = "\n".join(
        f"- {{config_name: {each}, data_files: [{{split: train, path: {each}/train*}}]}}" for each in ("one", "two")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{files}\n---\n")
    found = _result(run, machine, f"pool.sources=[{{path: {tmp_path}, name: one}}]")
    assert found.found == "no rows in the pool's sources: Hindi (hi)"


def test_a_source_of_one_language_counts_for_it(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    pq.write_table(_ROWS.drop_columns(["language_code"]), tmp_path / "rows.parquet")
    found = _result(
        run, machine, f"pool.sources=[{{path: {tmp_path / 'rows.parquet'}, layout: aya_dataset, language: swh}}]", languages="sw"
    )
    assert found.found == "rows: Swahili (sw) 9"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ("rows_per_language: 2", 2),
        ("rows_per_language: 2, exclude: {kind: [a]}", 1),
        ("rows_per_language: 9, include: {kind: a}", 2),
    ],
)
def test_rows_that_the_pool_does_not_take_do_not_count(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, kind: str, settings: str, rows: int
) -> None:
    path = _write_rows(tmp_path, kind)
    table = pa.concat_tables([_ROWS.slice(0, 3), _ROWS.slice(0, 3)])  # three rows of sw, each twice, two of kind a
    blank = pa.table({name: [" "] if name == "inputs" else [table[name][1].as_py()] for name in table.column_names})
    if kind == "parquet":
        pq.write_table(pa.concat_tables([table, blank]), path)
    else:
        Path(path).write_text("\n".join(json.dumps(row) for row in pa.concat_tables([table, blank]).to_pylist()))
    found = _result(run, machine, f"pool.sources=[{{path: {path}, {settings}}}]", languages="sw")
    assert found.found == f"rows: Swahili (sw) {rows}"


def test_a_large_table_counts_up_to_its_limit_with_a_note(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.preflight.row_counts._FEW_ROWS", 5)
    found = _result(run, machine, f"pool.sources=[{{path: {_write_rows(tmp_path, 'parquet')}, rows_per_language: 3}}]")
    assert found.found == "rows (with blank and repeated ones): Swahili (sw) 3, Hindi (hi) 3"


def test_guides_and_tests_count_as_the_run_takes_them(run: RunDir, machine: ClusterEnvironment) -> None:
    settings = ["evaluate.items_per_language=7", "pool.guides.exclude={subject: [capital]}"]
    config = load_run_config("atlas-test", overrides=settings, languages=["sw"])
    sets = read_guide_and_test(config.pool, "sw", 7)
    [found] = check_guides(CheckContext(config, run, machine))
    assert found.found == f"prompts/test items: sw {sets.guide.num_rows}/7"


def test_a_source_that_cannot_be_counted_does_not_block(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    source = f"pool.sources=[{{path: {_write_rows(tmp_path, 'parquet')}}}, {{path: org/set}}]"
    found = _result(run, machine, source, languages="sw,yo")
    assert not found.blocking
    assert found.found.startswith("rows: Swahili (sw) 4; not counted")
    assert found.found.endswith(": yo")


def test_a_target_outside_the_pools_languages_blocks_the_run(run: RunDir, machine: ClusterEnvironment) -> None:
    found = _result(run, machine, "pool.languages=[sw, en]")
    assert found.blocking
    assert "pool.languages does not include hi" in found.found


def test_the_atlas_has_every_language_of_its_presets(run: RunDir, machine: ClusterEnvironment) -> None:
    for preset in ("atlas", "atlas-test"):
        config: RunConfig = load_run_config(preset)
        [found] = check_rows(CheckContext(config, run, machine))
        assert not found.blocking

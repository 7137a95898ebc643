"""The method "oracle" is refused before a run if no source or no guide prompt has a subject."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.preflight import CheckResult, ClusterEnvironment, run_quick_checks
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.subjects import check_subjects

ORACLE = "select.methods=[compass, oracle]"
ROWS = [{"prompt": f"a {i}", "response": "b", "language": ("sw", "hi")[i % 2], "topic": "law"} for i in range(6)]


def write_rows(folder: Path, kind: str) -> str:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return str(path)


@pytest.fixture
def checked(run: RunDir, machine: ClusterEnvironment) -> object:
    def check(*settings: str) -> list[CheckResult]:
        return check_subjects(CheckContext(load_run_config("atlas-test", overrides=settings), run, machine))

    return check


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_pool_without_subjects_blocks_the_oracle_alone(checked, tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind)
    [result] = checked(ORACLE, f"pool.sources=[{{path: {path}}}]")
    assert (result.blocking, result.by) == (True, "settings")
    assert path in result.found
    assert "columns: {subject: NAME}" in result.remedy
    assert checked(f"pool.sources=[{{path: {path}}}]") == []
    assert checked(ORACLE, f"pool.sources=[{{path: {path}, columns: {{subject: topic}}}}]") == []
    assert checked(ORACLE, f"pool.sources=[{{path: {path}}}, {{path: 'atlas:small'}}]") == [], "one source has subjects"


def test_a_guide_set_without_subjects_is_named_with_its_languages(checked, tmp_path: Path) -> None:
    [result] = checked(ORACLE, f"pool.guides={{path: {write_rows(tmp_path, 'jsonl')}, exclude: {{}}}}")
    assert result.blocking
    assert "no guide prompt of sw, hi has one (pool.guides, " in result.found


def test_the_start_of_a_run_is_blocked_too(run: RunDir, machine: ClusterEnvironment, tmp_path: Path) -> None:
    settings = (ORACLE, f"pool.sources=[{{path: {write_rows(tmp_path, 'parquet')}}}]")
    config = load_run_config("atlas-test", overrides=settings)
    found = {stage: run_quick_checks(config, run, machine, {stage}) for stage in ("select", "report")}
    assert [each.blocking for each in found["select"] if each.check == "subjects"] == [True]
    assert not [each for each in found["report"] if each.check == "subjects"]

"""The quantile test's table: measures recomputed by plain Python, distances from the selected rows, and its refusals."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pytest
from scipy.stats import page_trend_test

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import ConfigError, RunConfig, load_run_config
from compass_ray.evaluation.quantiles import METHODS, collect_quantiles, describe, quantile_config, table_of
from tests.unit.evaluation.experiments.made_up import fill, first_correct

ITEMS = 40
SHARES = {"sw": (0.5, 0.9, 0.8, 0.7, 0.6, 0.4), "hi": (0.5, 0.8, 0.9, 0.6, 0.5, 0.3)}
"""Correct answers of own rows only, and of the quantiles: near rows help, far ones harm."""
COSINES = (0.9, 0.8, 0.7, 0.6, 0.5)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return quantile_config(load_run_config("atlas-test"), RunDir(str(tmp_path)))


@pytest.fixture
def run(tmp_path: Path, config: RunConfig) -> RunDir:
    run = RunDir(str(tmp_path))
    run.write_config(config)
    for code, shares in SHARES.items():
        answers = {method: first_correct(share, ITEMS) for method, share in zip(METHODS, shares, strict=True)}
        fill(run, code, answers)
        for method, cosine in zip(METHODS[1:], COSINES, strict=True):
            _write_rows(run, method, code, cosine)
    return run


def _write_rows(run: RunDir, method: str, code: str, cosine: float) -> None:
    """An own row without a score, and two added rows around a cosine."""
    row = {"row_id": "a", "role": "target", "language": code, "cluster": 0, "order": -1, "weight": 1.0}
    added = [row | {"role": "auxiliary", "score": cosine + shift} for shift in (-0.05, 0.05)]
    writer = run.selection(method, code).begin(Identity("select", {}, {}))
    writer.write_table("rows.parquet", pa.Table.from_pylist([row, *added], schema=schemas.SELECTED))
    writer.write_json("allocation.json", {"language": code, "method": method, "budget": 2})
    writer.publish({})


def test_the_table_holds_the_measures_of_the_files(run: RunDir, config: RunConfig) -> None:
    found = collect_quantiles(run, config)
    assert (found.languages, found.missing) == (("sw", "hi"), ())
    bits, probability = found.measures
    assert (bits.measure, probability.measure) == ("bits_per_byte", "probability")
    assert [row.quantile for row in bits.rows] == [0, 1, 2, 3, 4, 5]
    assert bits.rows[0].distance is None
    assert [row.distance for row in bits.rows[1:]] == pytest.approx([1 - cosine for cosine in COSINES], abs=1e-6)
    for position, (row, other) in enumerate(zip(bits.rows, probability.rows, strict=True)):
        for code, shares in SHARES.items():
            n = sum(first_correct(shares[position], ITEMS))
            assert row.values[code] == pytest.approx((2 * n + 8 * (ITEMS - n)) / math.log(2) / (4 * ITEMS))
            right = 1 / (1 + math.exp(-1.5))
            assert other.values[code] == pytest.approx((right * n + (1 - right) * (ITEMS - n)) / ITEMS)
        assert row.values["mean"] == pytest.approx(mean(row.values[code] for code in SHARES))


def test_both_measures_get_worse_with_distance_by_page_s_test(run: RunDir, config: RunConfig) -> None:
    found = collect_quantiles(run, config)
    expected = page_trend_test([[-share for share in shares[1:]] for shares in SHARES.values()], method="exact").pvalue
    for each in found.measures:
        assert each.trends["sw"].correlation == 1.0
        assert each.trends["sw"].p_value == pytest.approx(1 / 120)
        assert each.trends["hi"].correlation == pytest.approx(0.9)
        assert each.trends["mean"].correlation == pytest.approx(0.95)
        assert each.trends["mean"].p_value == pytest.approx(expected)
    assert "it gets worse with distance (mean rank correlation +0.95 in 2 languages" in describe(found)[0]
    assert "chance" not in [row[0] for row in table_of(found.measures[0])[1]]
    [chance] = [row for row in table_of(found.measures[1])[1] if row[0] == "chance"]
    assert set(chance[2:]) == {f"{found.measures[1].chance['mean']:.4f}"}
    title, rows = table_of(found.measures[0])
    assert "lower is better" in title
    assert [row[0] for row in rows[1:]] == [
        "own rows only",
        *(f"quantile {number}" for number in range(1, 6)),
        "rank correlation",
        "exact p, one-sided",
    ]
    assert rows[2][1] == "0.100"


def test_a_language_without_all_quantiles_is_named_and_left_out(run: RunDir, config: RunConfig) -> None:
    run.evaluation("quantile_3", "hi").remove()
    found = collect_quantiles(run, config)
    assert (found.languages, found.missing) == (("sw",), ("hi",))
    assert found.measures[0].trends.keys() == {"sw", "mean"}
    assert describe(found)[-1] == "Not measured in all quantiles: hi."


def test_nothing_measured_is_an_empty_table(tmp_path: Path, config: RunConfig) -> None:
    found = collect_quantiles(RunDir(str(tmp_path)), config)
    assert (found.measures, found.missing) == ((), ("sw", "hi"))


def test_it_trains_the_quantiles_and_own_rows_and_serves_the_latter(run: RunDir, config: RunConfig) -> None:
    assert config.select.methods == ("target", *(f"quantile_{number}" for number in range(1, 6)))
    assert config.serve.method == "target"
    assert quantile_config(load_run_config("atlas-test"), run) == config, "the same run continues"


def test_a_run_of_other_methods_is_refused(tmp_path: Path) -> None:
    run, plain = RunDir(str(tmp_path)), load_run_config("atlas-test")
    run.write_config(plain)
    with pytest.raises(ConfigError, match="is a run of other methods; a quantile test needs a run of its own"):
        quantile_config(plain, run)

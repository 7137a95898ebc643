"""The forecast of the embedding: scaled from measured slices by tokens, within its time, and only where it can be measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.preflight import ClusterEnvironment, row_counts
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.embedding import check_embedding_time, measure_time


class SlowEncoder:
    """A word is a token, and a token takes some seconds of its own clock, like each call."""

    def __init__(self, token: float = 2.0, call: float = 0.0) -> None:
        self.now, self.rows, self.token, self.call = 0.0, 0, token, call

    def encode(self, prompts: Sequence[str], *, batch_size: int) -> None:
        self.now += self.call + self.token * sum(self.count_tokens(prompts))
        self.rows += len(prompts)

    def count_tokens(self, prompts: Sequence[str]) -> Any:
        return np.array([len(prompt.split()) for prompt in prompts])


def _result(run: RunDir, machine: ClusterEnvironment, *settings: str, forecast: bool = True) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=settings, languages=["sw", "hi"])
    return check_embedding_time(CheckContext(config, run, machine, forecast=forecast))


def test_the_time_is_scaled_by_tokens_and_the_measurement_ends_in_time() -> None:
    encoder = SlowEncoder()
    sample = ["a"] * 40 + ["a b c d e"] * 40
    found = measure_time(encoder, sample, threads=1, clock=lambda: encoder.now)  # type: ignore[arg-type]
    assert found.seconds_per_token == pytest.approx(2.0)
    assert found.tokens_per_row == pytest.approx(3.0)
    assert found.seconds(1000, workers=2) == pytest.approx(1000 * 3 * 2 / 2)
    assert encoder.rows < len(sample) / 4, "it stops after the slice that exceeds the time"


def test_a_short_sample_is_measured_completely() -> None:
    encoder = SlowEncoder()
    found = measure_time(encoder, ["a b"], threads=1, clock=lambda: encoder.now)  # type: ignore[arg-type]
    assert (found.seconds_per_token, found.tokens_per_row) == (2.0, 2.0)


def test_calls_hardly_count_for_a_fast_encoder() -> None:
    encoder = SlowEncoder(token=1e-4, call=0.01)
    found = measure_time(encoder, ["a b"] * 160, threads=1, clock=lambda: encoder.now)  # type: ignore[arg-type]
    assert found.seconds(160, workers=1) == pytest.approx(0.01 + 320e-4)


def test_the_forecast_counts_the_rows_of_the_sources(run: RunDir, machine: ClusterEnvironment) -> None:
    [result] = _result(run, machine)
    rows = sum(sum(each.counts.values()) for each in CheckContext(load_run_config("atlas-test"), run, machine).source_counts)  # type: ignore[arg-type, misc]
    assert f"embedding {rows:,} rows takes about " in result.found
    assert not result.blocking


def test_rows_of_languages_outside_the_pool_do_not_count(
    run: RunDir, machine: ClusterEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counts, "_FEW_ROWS", 0)  # as for a large file, whose rows are counted by their language only
    texts = [f"row {number}" for number in range(9)]
    rows = pa.table({"prompt": texts, "response": texts, "language": ["sw"] * 4 + ["hi"] * 5})
    pq.write_table(rows, tmp_path / "rows.parquet")
    [result] = _result(run, machine, f"pool.sources=[{{path: {tmp_path / 'rows.parquet'}}}]", "pool.languages=[sw]")
    assert "embedding 4 rows takes about " in result.found


@pytest.mark.parametrize("setting", ["embed.encoder=organisation/model", "embed.trust_remote_code=true"])
def test_an_encoder_elsewhere_or_with_code_is_not_loaded(run: RunDir, machine: ClusterEnvironment, setting: str) -> None:
    [result] = _result(run, machine, setting)
    assert "the time is not measured" in result.found


def test_the_forecast_can_be_left_out(run: RunDir, machine: ClusterEnvironment) -> None:
    assert _result(run, machine, forecast=False) == []

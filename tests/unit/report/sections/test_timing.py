"""Makespan and utilisation: compared with sums by hand, and empty if nothing was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from compass_ray.artifacts import Attempt, Manifest, StageTime
from compass_ray.config import Resources, load_run_config
from compass_ray.report.blocks import PlotsBlock, TableBlock, TextBlock
from compass_ray.report.sections import timing
from compass_ray.report.utilisation import spans, stage_uses

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _manifest(stage: str, seconds: float | None, finished: float) -> Manifest:
    metrics: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
    end = datetime.fromtimestamp(START.timestamp() + finished, UTC).isoformat(timespec="seconds")
    return Manifest(stage=stage, fingerprint="f", metrics=metrics, provenance={"finished": end})


MANIFESTS = {
    "pool": _manifest("pool", None, 5),
    "selections/compass/sw": _manifest("select", 2.0, 12),
    "selections/compass/hi": _manifest("select", 4.0, 16),
    "adapters/sw/v0001": _manifest("train", 20.0, 34),
    "adapters/hi/v0001": _manifest("train", 10.0, 40),
}
ATTEMPT = Attempt(
    name="a",
    started=START,
    stages=(
        StageTime(stage="pool", started=0, seconds=5, cpus=4),
        StageTime(stage="select", started=10, seconds=6, cpus=4),
        StageTime(stage="train", started=10, seconds=30, cpus=4, gpus=2),
    ),
)


def test_work_and_utilisation_equal_a_calculation_by_hand() -> None:
    pool, select, train = stage_uses([ATTEMPT], MANIFESTS, Resources(cpus_per_worker=2))
    assert (pool.work, pool.mean_active_workers, pool.utilisation) == (None, None, None)
    assert (select.wall, select.work, select.mean_active_workers) == (6, 6, 1)
    assert select.utilisation == pytest.approx(6 * 2 / (6 * 4))
    assert train.utilisation == pytest.approx(30 * 2 / (30 * 4))


def test_a_stage_with_gpu_workers_is_measured_in_gpus() -> None:
    uses = {use.stage: use for use in stage_uses([ATTEMPT], MANIFESTS, Resources(cpus_per_worker=2, gpus_per_worker=0.5))}
    assert uses["train"].utilisation == pytest.approx(30 * 0.5 / (30 * 2))
    assert uses["select"].utilisation == pytest.approx(0.5)


def test_attempts_are_summed() -> None:
    again = Attempt(name="b", started=START, stages=(StageTime(stage="train", started=0, seconds=10, cpus=2),))
    train = stage_uses([ATTEMPT, again], MANIFESTS, Resources(cpus_per_worker=1))[-1]
    assert (train.wall, train.available) == (40, 140)


def test_spans_start_and_end_with_the_work() -> None:
    found = [(s.name, s.started - START.timestamp(), s.finished - START.timestamp()) for s in spans(MANIFESTS, ["train", "pool"])]
    assert found == [("adapters/sw/v0001", 14, 34), ("adapters/hi/v0001", 30, 40)]


def test_the_section_shows_makespan_stages_and_languages() -> None:
    config = load_run_config("atlas-test")
    text, table, _, pictures = timing.section(config, [ATTEMPT], MANIFESTS).blocks
    assert isinstance(text, TextBlock)
    assert "40.0 s" in text.text
    assert isinstance(table, TableBlock)
    assert [row[0] for row in table.rows] == ["pool", "selection", "training"]
    assert isinstance(pictures, PlotsBlock)
    numbers = pictures.pictures[0].table
    assert numbers is not None
    assert ("Swahili (sw)", "adapters/sw/v0001", "4.0", "24.0") in numbers.rows


def test_a_run_without_times_has_a_note() -> None:
    [only] = timing.section(load_run_config("atlas-test"), [], {}).blocks
    assert isinstance(only, TextBlock)
    assert only.tone == "missing"

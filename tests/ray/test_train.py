"""The train stage: what layouts have in common, workers that share one adapter, and a language that fails among others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from compass_ray import pipeline
from compass_ray.artifacts import LanguagesFailedError, RunDir, read_attempts
from compass_ray.config import RunConfig, with_overrides
from compass_ray.report.run_reader import RunReader
from compass_ray.report.training_cost import read_costs
from tests.ray.in_process import no_workers
from tests.unit.fakes import record_contents

Copy = Callable[..., RunDir]


def _adapters(run: RunDir, language: str) -> dict[str, bytes]:
    return {v: run.adapter(language, v).read_bytes("adapter_model.safetensors") for v in run.adapter_versions(language)}


def _empty(run: RunDir, method: str, language: str) -> None:
    """Take the rows out of a whole selection, so that training it cannot succeed."""
    selection = run.selection(method, language)
    selection.store_table("rows.parquet", selection.read_table("rows.parquet").slice(0, 0))
    record_contents(selection)


@pytest.mark.parametrize(
    "layout", [pytest.param("pooled", marks=pytest.mark.slow), pytest.param("per_language", marks=pytest.mark.soak)]
)
def test_a_language_that_fails_is_reported_and_the_others_end(copy: Copy, adapted: RunDir, small: RunConfig, layout: str) -> None:
    run = copy("adapters", "evaluations", "report")
    _empty(run, "compass", "hi")
    config = with_overrides(small, [f"train.layout={layout}", "select.methods=[compass]", "resources.max_failures=0"])
    with pytest.raises(LanguagesFailedError, match=r"one language failed; .*hi: training: selections/compass/hi has no rows"):
        pipeline.run_all(config, run)
    assert _adapters(run, "sw")["v0001"] == _adapters(adapted, "sw")["v0001"]
    assert _adapters(run, "hi") == {}
    assert run.evaluation("compass", "sw").verify()
    assert run.evaluation("compass", "hi").manifest() is None
    assert run.report.verify()


@pytest.mark.soak
def test_workers_that_share_an_adapter_make_the_one_that_a_single_worker_makes(
    copy: Copy, adapted: RunDir, small: RunConfig
) -> None:
    run = copy("adapters", "evaluations", "report")
    settings = ["languages=[sw]", "select.methods=[compass]", "train.layout=per_language", "resources.adapter_workers=2"]
    pipeline.run_all(with_overrides(small, settings), run, until="train")
    shared, alone = (load_file(Path(r.path, "adapters/sw/v0001/adapter_model.safetensors")) for r in (run, adapted))
    assert shared.keys() == alone.keys()
    assert max(float((shared[name] - alone[name]).abs().max()) for name in alone) < 1e-4
    assert run.adapter("sw", "v0001").require().fingerprint == adapted.adapter("sw", "v0001").require().fingerprint


def test_methods_are_trained_at_equal_cost(copy: Copy, adapted: RunDir, small: RunConfig) -> None:
    """COMPASS has more rows than the language alone, and takes no more tokens and steps."""
    run = copy("adapters", "evaluations", "report")
    config = with_overrides(small, ["train.tokens=2000", "train.step_tokens=130"])
    before = read_costs(RunReader(adapted), small)
    with no_workers():
        pipeline.run_all(config, run, until="train")
    costs = read_costs(RunReader(run), config)
    assert not before.is_equal
    assert before.methods["target"].tokens < before.methods["compass"].tokens
    assert costs.is_equal
    assert {(cost.tokens, cost.steps) for cost in costs.methods.values()} == {(2000, 15)}
    assert costs.methods.keys() == set(config.select.methods)
    assert costs.languages == 2


def test_selection_and_training_overlap_and_their_times_are_kept(adapted: RunDir) -> None:
    times = {time.stage: time for attempt in read_attempts(adapted) for time in attempt.stages}
    assert {"pool", "embed", "cluster", "select", "train", "evaluate", "report"} <= times.keys()
    assert times["train"].started <= times["select"].started
    assert times["train"].seconds >= times["select"].seconds
    assert all(time.cpus == 4 for time in times.values())
    assert "How long did it take?" in adapted.report.read_bytes("index.html").decode()

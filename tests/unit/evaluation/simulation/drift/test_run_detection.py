"""A simulation over a run: its prompts, its artifacts, and invalid plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.evaluation.simulation.drift import TABLE_COLUMNS, SimulationSettings, prompt_bank, simulate
from tests.unit.evaluation.simulation.conftest import ROWS, SUBJECTS
from tests.unit.fakes import WordAssigner

PLAN = SimulationSettings(seeds=2, period=500, thresholds=(0.05, 0.3), per_subject=40)


class SecondWord(WordAssigner):
    """The cluster of a prompt is its second word."""

    def assign(self, prompts):  # type: ignore[no-untyped-def]
        return super().assign([" ".join(prompt.split()[:2]) for prompt in prompts])


@pytest.fixture
def prepared(run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda run, config, space=None: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", PLAN)
    return run


def test_prompts_come_from_the_guide_set_and_the_languages_own_rows(prepared: RunDir) -> None:
    bank = prompt_bank.read_prompts(prepared, "sw")
    assert set(bank.by_subject) == set(SUBJECTS)
    for cluster, subject in enumerate(SUBJECTS):
        assert bank.by_subject[subject].tolist() == [cluster] * (ROWS - 1 + 20), "own rows with a subject, then guide prompts"
        assert bank.guide_by_subject[subject].tolist() == [cluster] * 20


def test_test_questions_are_used_only_on_request(run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda run, config, space=None: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", SimulationSettings(tests=True, per_subject=200))
    assert len(prompt_bank.read_prompts(run, "sw").by_subject["a"]) == ROWS - 1 + 20 + 20
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", SimulationSettings(tests=True, per_subject=5))
    assert len(prompt_bank.read_prompts(run, "sw").by_subject["a"]) == 5


def test_no_text_is_stored(prepared: RunDir) -> None:
    rows = prepared.simulation("sw", "prompts").read_table("prompts.parquet")
    assert rows.column_names == ["subject", "cluster", "part"]


def test_a_simulation_detects_the_changes_and_stores_results_and_plots(prepared: RunDir, config: RunConfig) -> None:
    found = simulate(config, prepared, "sw", PLAN)
    assert found.scenario == "drawn"
    assert len(found.rows) == len(found.examples) == 5
    own = found.rows[0]
    assert (own.trigger, own.summary.detected, own.summary.false_alarms) == ("permutation_test", 8, 0)
    assert all(len(row) == len(TABLE_COLUMNS) for row in found.table())
    artifact = prepared.simulation("sw", "detection")
    assert {"results.json", "divergence.png", "delay.png"} <= set(artifact.files())
    assert json.loads(artifact.read_bytes("results.json"))["lines"][0]["detected"] == 8
    assert artifact.read_bytes("delay.png").startswith(b"\x89PNG")


def test_a_repeated_simulation_is_identical_to_the_byte(prepared: RunDir, config: RunConfig) -> None:
    stored = []
    for _ in range(2):
        simulate(config, prepared, "sw", PLAN)
        artifact = prepared.simulation("sw", "detection")
        stored.append([artifact.read_bytes(file) for file in ("results.json", "divergence.png", "delay.png")])
    assert stored[0] == stored[1]


def test_progress_is_reported_for_each_stream(prepared: RunDir, config: RunConfig) -> None:
    reported: list[tuple[str, int, int]] = []
    simulate(config, prepared, "sw", PLAN, progress=lambda *event: reported.append(event))
    assert reported == [("simulate", 1, 2), ("simulate", 2, 2)]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SimulationSettings(period=200), "periods of 200 prompts are too short"),
        (SimulationSettings(seeds=0), "0 seeds"),
        (SimulationSettings(fresh_share=0.0), "share of new subjects is 0"),
        (SimulationSettings(thresholds=(2.0,)), "thresholds are in bits"),
        (SimulationSettings(scenario="paper"), "lacks prompts of 4 of its 4 groups"),
    ],
)
def test_an_invalid_plan_is_rejected(prepared: RunDir, config: RunConfig, plan: SimulationSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(config, prepared, "sw", SimulationSettings(**{**plan.as_json(), "per_subject": PLAN.per_subject}))


def test_a_run_without_clusters_says_so(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(ArtifactError, match="clusters is missing"):
        simulate(config, RunDir(str(tmp_path / "empty")), "sw", PLAN)

"""A whole simulation over a run: which prompts are asked, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.evaluation.simulation.drift import TABLE_COLUMNS, SimulationSettings, prompt_bank, simulate
from tests.unit.evaluation.simulation.drift.conftest import ROWS, SUBJECTS
from tests.unit.fakes import WordAssigner

PLAN = SimulationSettings(seeds=2, period=500, thresholds=(0.05, 0.3), per_subject=40)


class SecondWord(WordAssigner):
    """The cluster of a prompt is its second word."""

    def assign(self, prompts):  # type: ignore[no-untyped-def]
        return super().assign([" ".join(prompt.split()[:2]) for prompt in prompts])


@pytest.fixture
def placed(run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda run, config, place=None: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", PLAN)
    return run


def test_users_ask_what_the_guide_set_and_the_languages_own_rows_ask(placed: RunDir) -> None:
    found = prompt_bank.read_prompts(placed, "sw")
    assert set(found.by_subject) == set(SUBJECTS)
    for place, subject in enumerate(SUBJECTS):
        assert found.by_subject[subject].tolist() == [place] * (ROWS - 1 + 20), "own rows with a subject, then guide prompts"
        assert found.guide_by_subject[subject].tolist() == [place] * 20


def test_test_questions_are_asked_only_on_request(run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda run, config, place=None: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", SimulationSettings(tests=True, per_subject=200))
    assert len(prompt_bank.read_prompts(run, "sw").by_subject["a"]) == ROWS - 1 + 20 + 20
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", SimulationSettings(tests=True, per_subject=5))
    assert len(prompt_bank.read_prompts(run, "sw").by_subject["a"]) == 5


def test_no_text_is_kept(placed: RunDir) -> None:
    rows = placed.simulation("sw", "prompts").read_table("prompts.parquet")
    assert rows.column_names == ["subject", "cluster", "part"]


def test_a_simulation_finds_the_changes_and_keeps_its_record_and_pictures(placed: RunDir, config: RunConfig) -> None:
    found = simulate(config, placed, "sw", PLAN)
    assert found.scenario == "drawn"
    assert len(found.rows) == len(found.examples) == 5
    own = found.rows[0]
    assert (own.trigger, own.summary.detected, own.summary.false_alarms) == ("permutation_test", 8, 0)
    assert all(len(row) == len(TABLE_COLUMNS) for row in found.table())
    artifact = placed.simulation("sw", "detection")
    assert {"results.json", "divergence.png", "delay.png"} <= set(artifact.files())
    assert json.loads(artifact.read_bytes("results.json"))["lines"][0]["detected"] == 8
    assert artifact.read_bytes("delay.png").startswith(b"\x89PNG")


def test_a_simulation_made_again_is_the_same_to_the_byte(placed: RunDir, config: RunConfig) -> None:
    kept = []
    for _ in range(2):
        simulate(config, placed, "sw", PLAN)
        artifact = placed.simulation("sw", "detection")
        kept.append([artifact.read_bytes(file) for file in ("results.json", "divergence.png", "delay.png")])
    assert kept[0] == kept[1]


def test_progress_is_told_stream_by_stream(placed: RunDir, config: RunConfig) -> None:
    told: list[tuple[str, int, int]] = []
    simulate(config, placed, "sw", PLAN, progress=lambda *what: told.append(what))
    assert told == [("simulate", 1, 2), ("simulate", 2, 2)]


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
def test_a_plan_that_cannot_be_carried_out_is_refused(
    placed: RunDir, config: RunConfig, plan: SimulationSettings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(config, placed, "sw", SimulationSettings(**{**plan.as_json(), "per_subject": PLAN.per_subject}))


def test_a_run_without_clusters_says_so(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(ArtifactError, match="clusters is missing"):
        simulate(config, RunDir(str(tmp_path / "empty")), "sw", PLAN)

"""Trials of a budget, written down and concluded without training; and the budget that a selection reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import budget_search
from compass_ray.artifacts import SHARED, ArtifactError, Identity, RunDir
from compass_ray.budget_search.trial_data import hold_out
from compass_ray.config import ConfigError, RunConfig, TrainConfig, load_run_config
from compass_ray.records.budgets import TrialEpochRecord, TrialRecord
from compass_ray.row_selection import PoolView, SelectionProblem, prompt_keys
from compass_ray.row_selection.budget import budget_artifacts, resolve_budget
from compass_ray.stages import select

LOSSES = {0.2: (3.0, 2.5), 0.8: (2.9, 2.1, 2.3), 2.0: (2.8, 2.1)}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with what a budget is made of, all of it empty."""
    found = RunDir(str(tmp_path / "run"))
    for artifact in (found.pool, found.guide("sw"), found.guide_embeddings("sw"), found.clusters):
        artifact.begin(Identity("made", {}, {"name": artifact.name})).publish()
    return found


@pytest.fixture
def config() -> RunConfig:
    return load_run_config("atlas-test", overrides=["languages=[sw]", "select.budget=tuned", f"tune.budgets={list(LOSSES)}"])


def _trial(budget: float) -> TrialRecord:
    losses = enumerate(LOSSES[budget], start=1)
    epochs = tuple(TrialEpochRecord(epoch=i, train_loss=1.0, validation_loss=loss, seconds=0.5) for i, loss in losses)
    return TrialRecord(budget=budget, epochs=epochs, stopped=budget == 2.0)


def _prepared(config: RunConfig, run: RunDir) -> None:
    writer = run.budget("sw").begin(budget_search.identity(config, run, "sw"))
    rows = {f"{budget:g}": 10 for budget in LOSSES}
    writer.write_json("prepared.json", {"forecast": {"suggestion": 0.2}, "held": {"own": 1, "stand_ins": 0}, "rows": rows})


def test_the_lowest_loss_is_chosen_and_of_equal_ones_the_smaller_budget(config: RunConfig, run: RunDir) -> None:
    _prepared(config, run)
    for budget in reversed(LOSSES):
        assert budget_search.publish_best(config, run, "sw") is None
        budget_search.save_trial(run, "sw", _trial(budget))
    assert budget_search.load_trial(run, "sw", 2.0) == _trial(2.0)
    manifest = budget_search.publish_best(config, run, "sw")
    assert manifest is not None
    assert manifest == run.budget("sw").verify()
    assert manifest.metrics == {"budget": 0.8, "predicted": 0.2}
    record = run.budget("sw").read_json("budget.json")
    assert [(t["budget"], t["loss"], t["stopped"]) for t in record["trials"]] == [
        (0.2, 2.5, False),
        (0.8, 2.1, False),
        (2.0, 2.1, True),
    ]
    assert run.budget("sw").files() == ["budget.json"]
    assert resolve_budget(config, run, "sw") == config.select.model_copy(update={"budget": 0.8})


def test_killed_between_the_last_word_and_the_manifest_it_is_only_published(config: RunConfig, run: RunDir) -> None:
    _prepared(config, run)
    for budget in LOSSES:
        budget_search.save_trial(run, "sw", _trial(budget))
    budget_search.publish_best(config, run, "sw")
    written = run.budget("sw").read_bytes("budget.json")
    run.budget("sw").drop("manifest.json")
    assert budget_search.publish_best(config, run, "sw") is not None
    assert run.budget("sw").read_bytes("budget.json") == written


@pytest.mark.parametrize(
    ("override", "counts"),
    [
        ("train.epochs=9", True),
        ("select.tau=0.5", True),
        ("tune.grace=3", True),
        ("tune.filled=0.5", False),
        ("train.holdout=0.3", False),
        ("train.layout=per_language", False),
        ("train.batches=packed", False),
    ],
)
def test_a_tuned_budget_is_made_of_what_its_trials_train_with(
    config: RunConfig, run: RunDir, override: str, counts: bool
) -> None:
    other = load_run_config(
        "atlas-test", overrides=["languages=[sw]", "select.budget=tuned", f"tune.budgets={list(LOSSES)}", override]
    )
    prints = {budget_search.identity(each, run, "sw").fingerprint for each in (config, other)}
    assert len(prints) == 1 + counts


def test_a_predicted_budget_does_not_depend_on_training(run: RunDir) -> None:
    found = {
        budget_search.identity(load_run_config("atlas-test", overrides=["select.budget=predicted", *more]), run, "sw").fingerprint
        for more in ([], ["train.epochs=9"], ["tune.holdout=0.4"])
    }
    assert len(found) == 1


def test_a_budget_that_is_given_is_taken_and_one_that_is_missing_is_asked_for(config: RunConfig, run: RunDir) -> None:
    given_ = load_run_config("atlas-test")
    assert budget_artifacts(given_, run, "sw") == ()
    assert resolve_budget(given_, run, "sw") == given_.select
    assert budget_artifacts(config, run, SHARED) == ()
    with pytest.raises(ArtifactError, match="budgets/sw is missing"):
        resolve_budget(config, run, "sw")


@given(st.lists(st.floats(0, 9), min_size=1, max_size=8), st.integers(1, 8), st.integers(1, 4))
def test_training_ends_where_it_would_by_itself(losses: list[float], epochs: int, patience: int) -> None:
    found = budget_search.is_training_over(losses, TrainConfig(epochs=epochs, patience=patience))
    best = losses.index(min(losses))
    assert found == (len(losses) >= epochs or len(losses[best + 1 :]) >= patience)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("select.budget=often", "select.budget: expected a number from 0 to 10, or one of tuned, predicted .*'often'"),
        ("tune.budgets=[0.8, 0.2]", "tune.budgets: expected distinct budgets in ascending order"),
        ("tune.budgets=[0.1]", r"tune.budgets.0: .*0\.2"),
        ("tune.budgets=[11]", r"tune.budgets.0: .*10"),
        ("tune.holdout=0", "tune.holdout: "),
    ],
)
def test_what_cannot_be_searched_is_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_run_config("atlas-test", overrides=[override])


def test_the_language_s_own_rows_alone_do_not_depend_on_its_budget(config: RunConfig, run: RunDir) -> None:
    assert "budgets/sw" not in select._identity(config, run, "target", "sw").inputs
    with pytest.raises(ArtifactError, match="budgets/sw is missing"):
        select._identity(config, run, "random", "sw")


def _pool(own: list[str], others: list[str]) -> tuple[PoolView, SelectionProblem]:
    """A language's rows in one cluster, Hindi's rows in another; a guide set that asks for both."""
    n, m = len(own), len(others)
    cluster = np.repeat([0, 1], [n, m]).astype(np.int32)
    pool = PoolView(
        row_id=pa.array([f"row{i:02d}" for i in range(n + m)]),
        position=np.arange(n + m, dtype=np.int32),
        prompt_key=prompt_keys([*own, *others]),
        language=pa.array(["sw"] * n + ["hi", "yo"] * (m // 2)).dictionary_encode(),
        subject=pa.array([None] * (n + m), pa.string()).dictionary_encode(),
        cluster=cluster,
        proto=np.full(n + m, 0.5, np.float32),
        margin=np.full(n + m, 0.5, np.float32),
        vectors=np.eye(n + m, 8, dtype=np.float16),
        n_clusters=2,
    )
    return pool, SelectionProblem("sw", np.arange(n), cluster[:n].astype(np.int64), np.arange(n, n + m), np.array([0, 1]))


def test_no_row_that_is_trained_on_has_a_prompt_of_the_held_slice(config: RunConfig) -> None:
    """Every prompt of the language stands in the pool three times, and some of them in other languages' rows."""
    pool, question = _pool([f"swali {i % 10}" for i in range(30)], [f"Swali  {i}" for i in range(12)])
    _, left, held = hold_out(config, pool, question)
    at = np.flatnonzero(np.isin(pool.row_id.to_pylist(), held["row_id"].to_pylist()))
    slice_ = set(pool.prompt_key[at].tolist())
    assert not slice_ & set(pool.prompt_key[np.concatenate([left.own, left.others])].tolist())
    expected = [i for i in question.own.tolist() if int(pool.prompt_key[i]) not in slice_]
    assert left.own.tolist() == expected
    assert 0 < len(expected) < len(question.own) - sum(at < 30)
    assert left.trained_labels.tolist() == pool.cluster[left.own].tolist()


def test_a_language_with_one_prompt_has_nothing_left_to_train_on(config: RunConfig) -> None:
    pool, question = _pool(["swali"] * 20, ["a", "b"])
    with pytest.raises(ArtifactError, match=r"sw: the prompts of all 20 rows are held out.*select\.budget to a number"):
        hold_out(config, pool, question)

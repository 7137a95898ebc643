"""Results computed from the answers of many versions, compared with values computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.evaluation.simulation.drift import prompt_bank
from compass_ray.evaluation.simulation.forgetting import TABLE_COLUMNS, ForgettingSettings, render_plots, write_results
from compass_ray.evaluation.simulation.forgetting.aggregate import gather_evaluations, mean_accuracy, paired_difference
from compass_ray.evaluation.simulation.forgetting.overlay_run import version_name
from compass_ray.evaluation.simulation.forgetting.results import compute_results
from compass_ray.evaluation.simulation.forgetting.schedule import draw_windows, initial_overlay, load_scenario, variant_overlay
from compass_ray.evaluation.simulation.forgetting.settings import UpdateVariant
from tests.unit.evaluation.simulation.conftest import SUBJECTS
from tests.unit.evaluation.simulation.drift.test_run_detection import PLAN as PROMPTS_PLAN
from tests.unit.evaluation.simulation.drift.test_run_detection import SecondWord

ITEMS = 3
"""Test items of each subject."""
PLAN = ForgettingSettings(
    seeds=2, strategies=("static", "naive", "ecda"), buffers=(0.0, 0.05), lambdas=(2.0, 10.0), betas=(0.1, 0.5), scenario="drawn"
)
Knows = Callable[[UpdateVariant, int, int, str, int], bool]


@pytest.fixture
def prepared(run: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda *_: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", PROMPTS_PLAN)
    return run


def write_answers(config: RunConfig, run: RunDir, knows: Knows) -> None:
    """Write answers of all versions; ``knows(variant, seed, number, subject, item)`` decides which are correct."""
    for seed in range(PLAN.seeds):
        for variant, updates in PLAN.update_counts(config, 4).items():
            line = variant_overlay(PLAN, initial_overlay(run, "sw", seed), variant)
            for number in [1] if variant.strategy == "static" else range(2, updates + 2):
                rows = [
                    {
                        "item_id": f"{s}{i}",
                        "subject": s,
                        "right": (knew := knows(variant, seed, number, s, i)),
                        "nats": -0.5 - (not knew),
                    }
                    for s in SUBJECTS
                    for i in range(ITEMS)
                ]
                writer = line.own_artifact("answers", "sw", version_name(number)).begin(Identity("evaluate", {}, {}))
                writer.write_table("items.parquet", pa.Table.from_pylist(rows))
                writer.publish({"accepted": variant.strategy != "naive", "rows": 10 * number, "cpu_seconds": 2.0})


def knows_without_forgetting(run: RunDir) -> Knows:
    """Naive knows only the newest subjects; the other strategies know all subjects so far."""

    def knows(variant: UpdateVariant, seed: int, number: int, subject: str, item: int) -> bool:
        groups = load_scenario(run, PLAN, "sw", seed).groups
        newest = groups[number - 1 : number]
        return any(subject in group for group in (newest if variant.strategy == "naive" else groups[:number]))

    return knows


def test_learning_and_forgetting_by_strategy(prepared: RunDir, config: RunConfig) -> None:
    write_answers(config, prepared, knows_without_forgetting(prepared))
    found = compute_results(config, prepared, PLAN)
    means = {name: (each.accuracy.old.mean, each.accuracy.new.mean) for name, each in found.strategies.items()}
    assert means["naive"] == (0.0, 1.0)
    assert means["ecda"] == (1.0, 1.0)
    assert found.strategies["ecda"].over_naive.old.mean == 1.0
    assert found.strategies["ecda"].over_naive.new.mean == 0.0
    assert found.strategies["naive"].ecda_over.old.mean == 1.0
    assert found.strategies["ecda"].nats_over_naive.old.mean == 1.0
    assert found.naive_first_update is not None
    assert (found.naive_first_update.accuracy.old.mean, found.naive_first_update.nats.new.mean) == (-1.0, 1.0)
    assert found.strategies["static"].over_static.old.mean == found.strategies["static"].over_static.new.mean == 0.0
    assert (found.strategies["naive"].accepted, found.strategies["ecda"].accepted) == (0.0, 1.0)
    assert found.strategies["ecda"].rows == 30.0
    assert list(found.buffers) == [0.0, 0.05]
    assert list(found.sweep) == [(2.0, 0.1), (2.0, 0.5), (10.0, 0.1), (10.0, 0.5)]


def test_a_subject_is_new_once_and_old_afterwards(prepared: RunDir, config: RunConfig) -> None:
    write_answers(config, prepared, knows_without_forgetting(prepared))
    evaluated = gather_evaluations(prepared, PLAN, UpdateVariant("ecda"), "sw", 0, 3)
    groups = load_scenario(prepared, PLAN, "sw", 0).groups
    for each in evaluated:
        fresh = {item.split()[1][0] for item, new in zip(each.items, each.is_new, strict=True) if new}
        known = {item.split()[1][0] for item, new in zip(each.items, each.is_new, strict=True) if not new}
        assert fresh == set(groups[each.update - 1])
        assert known == {subject for group in groups[: each.update - 1] for subject in group}


def test_an_item_counts_once_by_the_mean_over_seeds_and_updates(prepared: RunDir, config: RunConfig) -> None:
    rng = np.random.default_rng(5)
    table = {key: bool(rng.random() < 0.5) for key in np.ndindex(2, 2, 5, len(SUBJECTS), ITEMS)}
    write_answers(
        config, prepared, lambda variant, seed, n, s, i: table[int(variant.strategy == "ecda"), seed, n, SUBJECTS.index(s), i]
    )
    variants = {
        w: [a for seed in (0, 1) for a in gather_evaluations(prepared, PLAN, UpdateVariant(w), "sw", seed, 3)]
        for w in ("naive", "ecda")
    }

    def by_hand(which: int, *, new: bool) -> dict[tuple[str, int], float]:
        values: dict[tuple[str, int], list[bool]] = {}
        for seed in (0, 1):
            groups = load_scenario(prepared, PLAN, "sw", seed).groups
            for number in (2, 3, 4):
                subjects = groups[number - 1] if new else [s for group in groups[: number - 1] for s in group]
                for s in subjects:
                    for i in range(ITEMS):
                        values.setdefault((s, i), []).append(table[which, seed, number, SUBJECTS.index(s), i])
        return {key: float(np.mean(each)) for key, each in values.items()}

    for part, new in (("old", False), ("new", True)):
        one, other = by_hand(1, new=new), by_hand(0, new=new)
        assert getattr(mean_accuracy(variants["ecda"]), part).mean == pytest.approx(np.mean(list(one.values())))
        expected = np.mean([one[key] - other[key] for key in one])
        assert getattr(paired_difference(variants["ecda"], variants["naive"]), part).mean == pytest.approx(expected)


def test_windows_contain_only_new_subjects_and_are_the_same_for_every_variant(prepared: RunDir, config: RunConfig) -> None:
    groups = load_scenario(prepared, PLAN, "sw", 1).groups
    found = draw_windows(config, prepared, PLAN, "sw", 1)
    assert [len(window) for window in found] == [config.drift.window] * 3
    for window, group in zip(found, groups[1:], strict=True):
        assert {SUBJECTS[cluster] for cluster in window.clusters} == set(group)
    assert found == draw_windows(config, prepared, PLAN, "sw", 1)
    assert found != draw_windows(config, prepared, PLAN, "sw", 0)


def test_results_and_plots_are_stored(prepared: RunDir, config: RunConfig) -> None:
    write_answers(config, prepared, knows_without_forgetting(prepared))
    found = write_results(config, prepared, PLAN)
    artifact = prepared.simulation("shared", "learning")
    assert {"results.json", "plane.png", "buffers.png", "sweep.png"} <= set(artifact.files())
    assert artifact.read_json("results.json")["strategies"]["ecda"]["over_naive"]["old"]["mean"] == 1.0
    assert artifact.read_bytes("plane.png").startswith(b"\x89PNG")
    assert [row[0] for row in found.table()] == ["static", "naive", "ecda", "chance"]
    assert found.table()[3][:3] == ["chance", "50.0%", "50.0%"]
    assert all(len(row) == len(TABLE_COLUMNS) for row in found.table())
    assert found.table()[2][3].startswith("+100.0 [+100.0, ")
    assert render_plots(found) == render_plots(found), "plots depend only on the results"


def test_without_test_items_of_the_subjects_there_is_no_chance_level(prepared: RunDir, config: RunConfig) -> None:
    write_answers(config, prepared, knows_without_forgetting(prepared))
    items = prepared.guide("sw").read_table("test.parquet")
    other = items.set_column(items.schema.get_field_index("subject"), "subject", pa.array(["another"] * items.num_rows))
    writer = prepared.guide("sw").begin(Identity("pool", {}, {}))
    writer.write_table("test.parquet", other)
    writer.publish()
    found = compute_results(config, prepared, PLAN)
    assert (found.chance, found.as_json()["chance"], found.table()[-1][:3]) == (None, None, ["chance", "–", "–"])


def test_missing_answers_are_named(prepared: RunDir, config: RunConfig) -> None:
    with pytest.raises(ArtifactError, match="answers/sw/v0001 is missing"):
        compute_results(config, prepared, PLAN)

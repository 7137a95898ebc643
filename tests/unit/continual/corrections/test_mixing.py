"""Corrections in an update: from feedback to what is trained on and rehearsed, within the share, and bound to the selection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.config import RunConfig, UpdateConfig
from compass_ray.continual.corrections import (
    MixedSelection,
    bind_identity,
    filter_corrections,
    mix_corrections,
    read_mark,
    record_reviews,
)
from compass_ray.continual.update.selection import UpdateSelection, choose_rows, publish_selection
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.window_clusters import ClusteredWindow
from compass_ray.continual.update.windows import Window
from compass_ray.continual.update.worker import make_version
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.model_resolver import model_identity
from compass_ray.training.adapter_job import AdapterPlan, load_training_set, train_adapter
from compass_ray.training.continual_state import ANCHORS, encode_pool_rows
from tests.unit.continual.corrections.made_run import MEANS, NOW, config_of, feed, make_run
from tests.unit.continual.corrections.test_filter import _said
from tests.unit.tiny_models import make_model, make_tokenizer

WINDOW = Window("sw", (0,) * 20 + (1,) * 20, "abc")
PLACED = ClusteredWindow(INITIAL_CLUSTERING, np.array(WINDOW.clusters))
UPDATE = UpdateSpec("sw", "v0001", "v0002", "abc")
SAID = _said(range(2))


@pytest.fixture(scope="module")
def base() -> BaseModel:
    tokenizer = make_tokenizer()
    return freeze(make_model("qwen2", len(tokenizer)), tokenizer, torch.device("cpu"), "tiny")


@pytest.fixture
def config() -> RunConfig:
    return config_of(corrections_share=0.3)


def _first(run: RunDir, config: RunConfig) -> AdapterPlan:
    identity = Identity("train", {"base_model": model_identity(config.train.base_model)}, {})
    return AdapterPlan("sw", run.adapter("sw", "v0001"), identity, run.selection("compass", "sw"), served=True)


@pytest.fixture
def run(tmp_path: Path, config: RunConfig) -> RunDir:
    """``v0001`` is live, and two of its replies were corrected."""
    found = make_run(str(tmp_path / "run"), config)
    writer = found.adapter("sw", "v0001").begin(_first(found, config).identity)
    writer.write_json("history.json", {})
    writer.publish()
    found.set_live("sw", {"version": "v0001"})
    feed(found, config, SAID)
    return found


@pytest.fixture
def trained(run: RunDir, config: RunConfig, base: BaseModel) -> RunDir:
    """Its ``v0001`` has weights, anchors and Fisher information."""
    plan = _first(run, config)
    plan.artifact.begin(plan.identity)
    train_adapter(config, run, plan, base)
    return run


def _identity() -> Identity:
    return Identity("update", {"window": WINDOW.name}, {})


def _joined(config: RunConfig, run: RunDir) -> MixedSelection:
    found = mix_corrections(config, run, "sw", choose_rows(config, run, PLACED, UPDATE).rows, means=MEANS, now=NOW)
    assert found is not None
    return found


def _publish(config: RunConfig, run: RunDir) -> MixedSelection:
    joined, chosen = _joined(config, run), choose_rows(config, run, PLACED, UPDATE)
    UpdateSelection(PLACED, chosen, joined).publish(
        run.selection("v0002", "sw").begin(bind_identity(_identity(), config.update, joined.mark)), WINDOW
    )
    return joined


def test_from_feedback_to_what_is_trained_on_and_what_is_not_forgotten(
    trained: RunDir, config: RunConfig, base: BaseModel
) -> None:
    run, joined = trained, _publish(config, trained)
    data = load_training_set(run, run.selection("v0002", "sw"), config)
    texts = {(row.prompt, row.response) for row in data.rows}
    assert {(prompt, correction) for prompt, correction, _ in SAID} <= texts
    assert len(texts) > 2
    make_version(config, run, UPDATE, base)
    anchors = run.adapter("sw", "v0002").read_table(ANCHORS)["row_id"].to_pylist()
    learnt = {row for row, held in zip(data.row_ids, data.held_out_mask, strict=True) if not held}
    expected = learnt & set(joined.corrections["row_id"].to_pylist())
    assert expected
    assert expected <= set(anchors)
    assert len(encode_pool_rows(config, run, anchors, base)) == len(anchors)


def test_the_texts_stand_beside_the_selection_and_what_stayed_out_without_its_text(run: RunDir, config: RunConfig) -> None:
    feed(run, config, [("sw swali lingine kabisa la leo", "de antwort mit vielen worten", "k9")], start=10)
    joined, selection = _publish(config, run), run.selection("v0002", "sw")
    rows = selection.read_table("rows.parquet")
    assert rows.schema.equals(schemas.SELECTED)
    traffic = [row for row in rows.to_pylist() if row["role"] == "traffic"]
    assert {row["row_id"] for row in traffic} == set(joined.corrections["row_id"].to_pylist())
    assert selection.read_table("labelled.parquet")["key"].to_pylist() == ["k1", "k1"]
    (out,) = selection.read_table("quarantine.parquet").to_pylist()
    assert (out["state"], out["reason"][:18]) == ("refused", "the correction is ")
    assert b"antwort" not in selection.read_bytes("quarantine.parquet")
    assert selection.require().metrics["corrections"] == 2


def test_corrections_are_at_most_their_share(run: RunDir) -> None:
    feed(run, config_of(), [each for n in range(20) for each in _said(range(100 + n, 101 + n), f"key-{n}")], start=100)
    for share in (0.01, 0.1, 0.25, 0.5):
        joined = _joined(config_of(corrections_share=share), run)
        roles = joined.rows["role"].to_pylist()
        assert roles.count("traffic") <= share * len(roles)
        assert (roles.count("traffic") + 1) / (len(roles) + 1) > share or roles.count("traffic") == 22
        over = [row for row in joined.withheld.to_pylist() if "update.corrections_share" in row["reason"]]
        assert len(over) == 22 - roles.count("traffic")


def test_what_was_trained_on_does_not_join_again_and_a_full_retraining_takes_it_anew(run: RunDir, config: RunConfig) -> None:
    _publish(config, run)
    writer = run.adapter("sw", "v0002").begin(Identity("train", {}, {}))
    writer.write_json("history.json", {"from": "v0001", "strategy": "ecda"})
    writer.publish()
    run.set_live("sw", {"version": "v0002"})
    assert {str(v.state) for v in filter_corrections(config, run, "sw", means=MEANS, now=NOW).verdicts} == {"trained"}
    feed(run, config, [(f"{SAID[0][0]} sasa", "sw jibu jingine lenye maneno mengi", "k7")], start=70)
    again = next(v for v in filter_corrections(config, run, "sw", means=MEANS, now=NOW).verdicts if v.pair.key == "k7")
    assert (str(again.state), again.reason[:25]) == ("left out", "its prompt is all but tha")
    data, anew = load_training_set(run, run.selection("v0002", "sw"), config), config_of(corrections_share=0.3, strategy="full")
    held = {row.response for row, out in zip(data.rows, data.held_out_mask, strict=True) if out}
    verdicts = filter_corrections(anew, run, "sw", means=MEANS, now=NOW).verdicts
    found = {v.pair.correction: str(v.state) for v in verdicts if v.pair.key != "k7" and v.state != "left out"}
    expected = {correction: "trained" if correction in held else "accepted" for _, correction, _ in SAID}
    assert found.items() <= expected.items()
    assert SAID[1][1] in found
    rows = choose_rows(anew, run, PLACED, UpdateSpec("sw", "v0002", "v0003", "abc")).rows
    assert set(rows["role"].to_pylist()) == {"target", "auxiliary"}


def test_a_selection_that_stands_is_kept_whatever_is_said_meanwhile(run: RunDir, config: RunConfig) -> None:
    adapter = run.adapter("sw", "v0001")
    whole = config.select.fingerprint_settings(exclude={"methods"}) | {
        "budget": 1.0,
        "window": WINDOW.name,
        "seed": config.seed,
        "anew": False,
    }
    identity = Identity("update", whole, {adapter.name: adapter.require().fingerprint})
    joined, chosen = _joined(config, run), choose_rows(config, run, PLACED, UPDATE)
    UpdateSelection(PLACED, chosen, joined).publish(
        run.selection("v0002", "sw").begin(bind_identity(identity, config.update, joined.mark)), WINDOW
    )
    before = run.selection("v0002", "sw").require()
    feed(run, config, _said(range(50, 53)), start=50)
    assert _joined(config, run).mark != joined.mark
    publish_selection(config, run, WINDOW, UPDATE)  # a selection that had to be made would start Ray
    assert run.selection("v0002", "sw").require() == before


def test_other_corrections_or_another_rule_are_another_selection(run: RunDir, config: RunConfig) -> None:
    mark = _joined(config, run).mark
    record_reviews(run, [], [filter_corrections(config, run, "sw", means=MEANS, now=NOW).verdicts[0].pair], clock=lambda: NOW)
    marks = [mark, _joined(config, run).mark]
    rules = [config.update, config_of("reviewed").update, config_of(corrections_per_key=1).update]
    made = [bind_identity(_identity(), rule, each).fingerprint for rule in rules for each in marks]
    assert len(set(made)) == len(made)


def test_none_changes_nothing(run: RunDir) -> None:
    none = config_of("none")
    assert mix_corrections(none, run, "sw", schemas.SELECTED.empty_table(), means=MEANS, now=NOW) is None
    assert bind_identity(_identity(), UpdateConfig(), None) == _identity()
    assert UpdateConfig(corrections="all", corrections_share=0.5).identity() == UpdateConfig().identity()
    assert not {name for name in UpdateConfig().identity() if "correction" in name}
    chosen = choose_rows(none, run, PLACED, UPDATE)
    UpdateSelection(PLACED, chosen, None).publish(run.selection("v0002", "sw").begin(_identity()), WINDOW)
    assert run.selection("v0002", "sw").files() == ["allocation.json", "rows.parquet", "window.json"]
    assert run.selection("v0002", "sw").read_table("rows.parquet").equals(chosen.rows)
    assert read_mark(run.selection("v0002", "sw").require()) is None


def test_nothing_joins_a_selection_without_rows(run: RunDir, config: RunConfig) -> None:
    found = mix_corrections(config, run, "sw", schemas.SELECTED.empty_table(), means=MEANS, now=NOW)
    assert found is not None
    assert (found.rows.num_rows, found.corrections.num_rows, found.withheld.num_rows) == (0, 0, 2)


def test_a_text_that_was_deleted_is_missed_by_name(run: RunDir, config: RunConfig) -> None:
    joined = _publish(config, run)
    Path(run.selection("v0002", "sw").path, "labelled.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"2 rows, .* are neither in the pool nor in the labelled.parquet of a selection"):
        load_training_set(run, run.selection("v0002", "sw"), config)
    assert joined.corrections.num_rows == 2


@settings(max_examples=30)
@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=6), st.randoms())
def test_the_mark_is_of_what_entered_in_any_order(names: list[str], chance: object) -> None:
    other = sorted(names, key=lambda _: chance.random())  # type: ignore[attr-defined]
    marks = {_of(each).mark for each in (names, other)}
    assert len(marks) == 1
    assert _of([*names, "d"]).mark not in marks


def _of(names: list[str]) -> MixedSelection:
    table = pa.table({name: pa.array(names, pa.string()) for name in schemas.CORRECTIONS.names}, schema=schemas.CORRECTIONS)
    return MixedSelection(schemas.SELECTED.empty_table(), table, schemas.WITHHELD_CORRECTIONS.empty_table())

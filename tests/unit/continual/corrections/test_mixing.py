"""Corrections in an update: from feedback to training and rehearsal, within the share, and bound to the selection."""

from __future__ import annotations

import stat
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
    read_corrections_hash,
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
from tests.unit.continual.corrections.made_run import MODELS, NOW, config_of, feed, make_run
from tests.unit.continual.corrections.test_filter import _corrected
from tests.unit.tiny_models import make_model, make_tokenizer

WINDOW = Window("sw", (0,) * 20 + (1,) * 20, "abc")
CLUSTERED = ClusteredWindow(INITIAL_CLUSTERING, np.array(WINDOW.clusters))
UPDATE = UpdateSpec("sw", "v0001", "v0002", "abc")
CORRECTED = _corrected(range(2))


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
    feed(found, config, CORRECTED)
    return found


@pytest.fixture
def trained(run: RunDir, config: RunConfig, base: BaseModel) -> RunDir:
    """A run in which ``v0001`` has weights, anchors and Fisher information."""
    plan = _first(run, config)
    plan.artifact.begin(plan.identity)
    train_adapter(config, run, plan, base)
    return run


def _identity() -> Identity:
    return Identity("update", {"window": WINDOW.name}, {})


def _mixed(config: RunConfig, run: RunDir) -> MixedSelection:
    found = mix_corrections(config, run, "sw", choose_rows(config, run, CLUSTERED, UPDATE).rows, models=MODELS, now=NOW)
    assert found is not None
    return found


def _publish(config: RunConfig, run: RunDir) -> MixedSelection:
    mixed, chosen = _mixed(config, run), choose_rows(config, run, CLUSTERED, UPDATE)
    UpdateSelection(CLUSTERED, chosen, mixed).publish(
        run.selection("v0002", "sw").begin(bind_identity(_identity(), config.update, mixed.corrections_hash)), WINDOW
    )
    return mixed


def test_corrections_are_trained_on_and_become_anchors(trained: RunDir, config: RunConfig, base: BaseModel) -> None:
    run, mixed = trained, _publish(config, trained)
    data = load_training_set(run, run.selection("v0002", "sw"), config)
    texts = {(row.prompt, row.response) for row in data.rows}
    assert {(prompt, correction) for prompt, correction, _ in CORRECTED} <= texts
    assert len(texts) > 2
    make_version(config, run, UPDATE, base)
    anchors = run.adapter("sw", "v0002").read_table(ANCHORS)["row_id"].to_pylist()
    trained_ids = {row for row, held in zip(data.row_ids, data.held_out_mask, strict=True) if not held}
    expected = trained_ids & set(mixed.corrections["row_id"].to_pylist())
    assert expected
    assert expected <= set(anchors)
    assert len(encode_pool_rows(config, run, anchors, base)) == len(anchors)


def test_the_selection_stores_accepted_texts_and_withheld_corrections_without_text(run: RunDir, config: RunConfig) -> None:
    feed(run, config, [("sw swali lingine kabisa la leo", "de antwort mit vielen worten", "k9")], start=10)
    mixed, selection = _publish(config, run), run.selection("v0002", "sw")
    rows = selection.read_table("rows.parquet")
    assert rows.schema.equals(schemas.SELECTED)
    traffic = [row for row in rows.to_pylist() if row["role"] == "traffic"]
    assert {row["row_id"] for row in traffic} == set(mixed.corrections["row_id"].to_pylist())
    assert selection.read_table("labelled.parquet")["key"].to_pylist() == ["k1", "k1"]
    private = [Path(selection.path, file).stat() for file in ("labelled.parquet", "quarantine.parquet")]
    assert {stat.S_IMODE(each.st_mode) for each in private} == {0o600}
    (out,) = selection.read_table("quarantine.parquet").to_pylist()
    assert (out["state"], out["reason"][:18]) == ("refused", "the correction is ")
    assert b"antwort" not in selection.read_bytes("quarantine.parquet")
    assert selection.require().metrics["corrections"] == 2


def test_corrections_are_at_most_their_share(run: RunDir) -> None:
    feed(run, config_of(), [each for n in range(20) for each in _corrected(range(100 + n, 101 + n), f"key-{n}")], start=100)
    for share in (0.01, 0.1, 0.25, 0.5):
        mixed = _mixed(config_of(corrections_share=share), run)
        roles = mixed.rows["role"].to_pylist()
        assert roles.count("traffic") <= share * len(roles)
        assert (roles.count("traffic") + 1) / (len(roles) + 1) > share or roles.count("traffic") == 22
        over = [row for row in mixed.withheld.to_pylist() if "update.corrections_share" in row["reason"]]
        assert len(over) == 22 - roles.count("traffic")


def test_trained_corrections_are_not_added_again_except_by_a_full_retraining(run: RunDir, config: RunConfig) -> None:
    _publish(config, run)
    writer = run.adapter("sw", "v0002").begin(Identity("train", {}, {}))
    writer.write_json("history.json", {"from": "v0001", "strategy": "ecda"})
    writer.publish()
    run.set_live("sw", {"version": "v0002"})
    assert {str(v.state) for v in filter_corrections(config, run, "sw", models=MODELS, now=NOW).verdicts} == {"trained"}
    feed(run, config, [(f"{CORRECTED[0][0]} sasa", "sw jibu jingine lenye maneno mengi", "k7")], start=70)
    again = next(v for v in filter_corrections(config, run, "sw", models=MODELS, now=NOW).verdicts if v.pair.key == "k7")
    assert (str(again.state), again.reason[:25]) == ("left out", "prompt nearly equals that")
    data, retrained = (
        load_training_set(run, run.selection("v0002", "sw"), config),
        config_of(corrections_share=0.3, strategy="full"),
    )
    held = {row.response for row, out in zip(data.rows, data.held_out_mask, strict=True) if out}
    verdicts = filter_corrections(retrained, run, "sw", models=MODELS, now=NOW).verdicts
    found = {v.pair.correction: str(v.state) for v in verdicts if v.pair.key != "k7" and v.state != "left out"}
    expected = {correction: "trained" if correction in held else "accepted" for _, correction, _ in CORRECTED}
    assert found.items() <= expected.items()
    assert CORRECTED[1][1] in found
    rows = choose_rows(retrained, run, CLUSTERED, UpdateSpec("sw", "v0002", "v0003", "abc")).rows
    assert set(rows["role"].to_pylist()) == {"target", "auxiliary"}


def test_a_complete_selection_keeps_its_corrections_despite_new_feedback(run: RunDir, config: RunConfig) -> None:
    adapter = run.adapter("sw", "v0001")
    select_settings = config.select.fingerprint_settings(exclude={"methods"}) | {
        "budget": 1.0,
        "window": WINDOW.name,
        "seed": config.seed,
        "anew": False,
    }
    identity = Identity("update", select_settings, {adapter.name: adapter.require().fingerprint})
    mixed, chosen = _mixed(config, run), choose_rows(config, run, CLUSTERED, UPDATE)
    UpdateSelection(CLUSTERED, chosen, mixed).publish(
        run.selection("v0002", "sw").begin(bind_identity(identity, config.update, mixed.corrections_hash)), WINDOW
    )
    before = run.selection("v0002", "sw").require()
    feed(run, config, _corrected(range(50, 53)), start=50)
    assert _mixed(config, run).corrections_hash != mixed.corrections_hash
    publish_selection(config, run, WINDOW, UPDATE)  # a new selection would start Ray
    assert run.selection("v0002", "sw").require() == before


def test_other_corrections_or_another_rule_make_another_selection(run: RunDir, config: RunConfig) -> None:
    first = _mixed(config, run).corrections_hash
    record_reviews(run, [], [filter_corrections(config, run, "sw", models=MODELS, now=NOW).verdicts[0].pair], clock=lambda: NOW)
    hashes = [first, _mixed(config, run).corrections_hash]
    rules = [config.update, config_of("reviewed").update, config_of(corrections_per_key=1).update]
    made = [bind_identity(_identity(), rule, each).fingerprint for rule in rules for each in hashes]
    assert len(set(made)) == len(made)


def test_corrections_none_changes_nothing(run: RunDir) -> None:
    none = config_of("none")
    assert mix_corrections(none, run, "sw", schemas.SELECTED.empty_table(), models=MODELS, now=NOW) is None
    assert bind_identity(_identity(), UpdateConfig(), None) == _identity()
    assert UpdateConfig(corrections="all", corrections_share=0.5).identity() == UpdateConfig().identity()
    assert not {name for name in UpdateConfig().identity() if "correction" in name}
    chosen = choose_rows(none, run, CLUSTERED, UPDATE)
    UpdateSelection(CLUSTERED, chosen, None).publish(run.selection("v0002", "sw").begin(_identity()), WINDOW)
    assert run.selection("v0002", "sw").files() == ["allocation.json", "rows.parquet", "window.json"]
    assert run.selection("v0002", "sw").read_table("rows.parquet").equals(chosen.rows)
    assert read_corrections_hash(run.selection("v0002", "sw").require()) is None


def test_a_selection_without_rows_gets_no_corrections(run: RunDir, config: RunConfig) -> None:
    found = mix_corrections(config, run, "sw", schemas.SELECTED.empty_table(), models=MODELS, now=NOW)
    assert found is not None
    assert (found.rows.num_rows, found.corrections.num_rows, found.withheld.num_rows) == (0, 0, 2)


def test_a_deleted_corrections_file_is_an_error_that_names_it(run: RunDir, config: RunConfig) -> None:
    mixed = _publish(config, run)
    Path(run.selection("v0002", "sw").path, "labelled.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"2 rows, .* are neither in the pool nor in the labelled.parquet of a selection"):
        load_training_set(run, run.selection("v0002", "sw"), config)
    assert mixed.corrections.num_rows == 2


@settings(max_examples=30)
@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=6), st.randoms())
def test_the_hash_depends_on_the_corrections_but_not_on_their_order(names: list[str], chance: object) -> None:
    other = sorted(names, key=lambda _: chance.random())  # type: ignore[attr-defined]
    hashes = {_of(each).corrections_hash for each in (names, other)}
    assert len(hashes) == 1
    assert _of([*names, "d"]).corrections_hash not in hashes


def _of(names: list[str]) -> MixedSelection:
    table = pa.table({name: pa.array(names, pa.string()) for name in schemas.CORRECTIONS.names}, schema=schemas.CORRECTIONS)
    return MixedSelection(schemas.SELECTED.empty_table(), table, schemas.WITHHELD_CORRECTIONS.empty_table())

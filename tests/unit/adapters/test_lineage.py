"""The lineage of versions: parents, the selections each version was trained on, and the next version number."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.adapters import lineage
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.strategies import STRATEGIES

CONFIG = load_run_config("atlas-test")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def _version(run: RunDir, version: str, parent: str | None = None, *, gated: bool = False, strategy: str = "ecda") -> None:
    writer = run.adapter("sw", version).begin(Identity("train", {}, {}))
    writer.write_json("history.json", {"from": parent, "anew": STRATEGIES[strategy].from_scratch} if parent else {})
    writer.publish()
    if gated:
        run.update("sw", version).begin(Identity("update", {}, {})).publish()


def test_a_language_without_a_live_version_raises_with_the_next_step(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match=r"sw has no live adapter; .*compass-ray adapters promote .* sw v0001"):
        lineage.live_version(run, "sw")
    run.set_live("sw", {"version": "v0003"})
    assert lineage.live_version(run, "sw") == "v0003"


def test_an_update_takes_the_next_number_after_the_last_gate_result(run: RunDir) -> None:
    _version(run, "v0001")
    _version(run, "target")
    assert lineage.next_version(run, "sw") == "v0002"
    _version(run, "v0002", "v0001", gated=True)
    assert lineage.next_version(run, "sw") == "v0003"


def test_an_update_killed_before_its_gate_result_keeps_its_number(run: RunDir) -> None:
    _version(run, "v0001")
    _version(run, "v0002", "v0001")
    assert lineage.next_version(run, "sw") == "v0002"


def test_a_version_records_its_parent(run: RunDir) -> None:
    _version(run, "v0001")
    _version(run, "v0002", "v0001")
    assert (lineage.parent_version(run, "sw", "v0001"), lineage.parent_version(run, "sw", "v0002")) == (None, "v0001")


def test_a_version_was_trained_on_its_ancestors_selections_first(run: RunDir) -> None:
    _version(run, "v0001")
    _version(run, "v0002", "v0001", gated=True)
    _version(run, "v0003", "v0001", gated=True)
    _version(run, "v0004", "v0002", gated=True)
    names = [artifact.name for artifact in lineage.lineage_selections(CONFIG, run, "sw", "v0004")]
    assert names == ["selections/compass/sw", "selections/v0002/sw", "selections/v0004/sw"]


def test_a_version_trained_from_scratch_has_only_its_own_selection(run: RunDir) -> None:
    _version(run, "v0001")
    _version(run, "v0002", "v0001", gated=True, strategy="full")
    _version(run, "v0003", "v0002", gated=True)
    names = [artifact.name for artifact in lineage.lineage_selections(CONFIG, run, "sw", "v0003")]
    assert names == ["selections/v0002/sw", "selections/v0003/sw"]
    assert lineage.parent_version(run, "sw", "v0002") == "v0001"


def test_a_method_s_own_version_was_trained_on_the_method_s_selection(run: RunDir) -> None:
    _version(run, "target")
    _version(run, "v0002", "target")
    names = [artifact.name for artifact in lineage.lineage_selections(CONFIG, run, "sw", "v0002")]
    assert names == ["selections/target/sw", "selections/v0002/sw"]
